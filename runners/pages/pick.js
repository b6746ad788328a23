// Opens the page that has the chosen rows side by side.
document.querySelectorAll('[data-pick]').forEach(region => {
  const button = region.querySelector('.pick button'), most = Number(region.dataset.pick);
  const chosen = () => [...region.querySelectorAll('input[type=checkbox]:checked')].map(box => box.value);
  const show = () => { const n = chosen().length; button.disabled = n < 2 || n > most; };
  region.querySelectorAll('input[type=checkbox]').forEach(box => { box.hidden = false; });
  region.querySelector('.pick').hidden = false; region.addEventListener('change', show); show();
  button.addEventListener('click', () => { location.href = 'compare--' + chosen().sort().join('--') + '.html'; });
});
