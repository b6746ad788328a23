// Shows the menus, hides the blocks that do not match, says how many are left, and shows a few at a time.
document.querySelectorAll('[data-filter]').forEach(region => {
  const box = region.querySelector('.filters'), words = box.querySelector('input'), output = box.querySelector('output');
  const items = [...region.querySelectorAll('.item')].map(item => [item, item.textContent.toLowerCase()]);
  const menus = [...box.querySelectorAll('select')], more = region.querySelector('.more'), step = 50;
  const said = n => n.toLocaleString('en');
  let most = step;
  const show = () => {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    items.forEach(([item, text]) => {
      const hit = menus.every(m => !m.value || item.getAttribute('data-' + m.dataset.by) === m.value) && asked.every(w => text.includes(w));
      left += hit; item.hidden = !hit || left > most;
    });
    output.textContent = said(left) + ' of ' + said(items.length);
    more.hidden = left <= most;
    more.firstChild.textContent = 'Show more (' + said(most) + ' of ' + said(left) + ' are shown)';
  };
  box.hidden = false; box.addEventListener('input', () => { most = step; show(); }); show();
  more.firstChild.addEventListener('click', () => { most += 2 * step; show(); });
});
