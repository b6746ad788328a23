// Shows the search boxes (they are of no use without a script), hides the rows without all of the words, says how many are left, and shows a few at a time.
document.querySelectorAll('[data-search]').forEach(box => {
  const label = box.querySelector('label'), input = label.querySelector('input'), output = label.querySelector('output');
  const rows = [...box.querySelectorAll('tbody tr')].map(row => [row, row.textContent.toLowerCase()]);
  const more = box.querySelector('.more'), long = box.classList.contains('long');
  const said = n => n.toLocaleString('en'), step = rows.filter(([row]) => !row.classList.contains('later')).length;
  let most = step;
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach(([row, text]) => { const hit = words.every(w => text.includes(w)); left += hit; row.hidden = !hit || left > most; });
    output.textContent = words.length ? said(left) + ' of ' + said(rows.length) : said(rows.length) + ' rows';
    more.hidden = left <= most;
    more.firstChild.textContent = 'Show more (' + said(most) + ' of ' + said(left) + ' are shown)';
    box.classList.toggle('long', long && !words.length && most === step);
  };
  label.hidden = false; input.addEventListener('input', () => { most = step; show(); }); show();
  more.firstChild.addEventListener('click', () => { most += 4 * step; show(); });
});
