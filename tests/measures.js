// What a page looks like, measured in the browser; each function returns what is wrong, or a number.
(() => {
  const shown = e => e.getClientRects().length > 0;
  const drawn = () => [...document.querySelectorAll("figure > svg")].filter(shown);

  const channels = color => (color.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
  const ground = e => {
    for (let p = e; p; p = p.parentElement) {
      const c = channels(getComputedStyle(p).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };

  // How many lines the text of an element takes.
  const lines = e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    const tops = [...range.getClientRects()].filter(r => r.width).map(r => r.bottom).sort((x, y) => x - y);
    return tops.filter((bottom, n) => n === 0 || bottom - tops[n - 1] > 8).length;
  };

  window.measures = {
    // How the page was when it was opened: its height, and what was folded.
    remember: () => {
      measures.height = document.documentElement.scrollHeight;
      measures.folded = [...document.querySelectorAll("details:not([open])")];
    },
    // Folds again what was folded, or opens what had been opened of it since.
    fold: again => {
      if (again) { measures.opened = measures.folded.filter(d => d.open); measures.opened.forEach(d => { d.open = false; }); }
      else measures.opened.forEach(d => { d.open = true; });
    },

    // Text whose contrast against the nearest painted ground is under 4.5 (WCAG 2.2, 1.4.3); text inside bars is judged by eye.
    lowContrast: () => [...document.querySelectorAll("body *")].filter(e =>
      shown(e) && !["title", "desc", "SCRIPT", "STYLE"].includes(e.tagName) && !e.classList.contains("inside")
      && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
    ).map(e => {
      const style = getComputedStyle(e), ink = channels(e instanceof SVGElement ? style.fill : style.color);
      const [dark, light] = [luminance(ink), luminance(ground(e))].sort((a, b) => a - b);
      return [(light + 0.05) / (dark + 0.05), e];
    }).filter(([ratio]) => ratio < 4.5).map(([ratio, e]) => `${e.tagName} ${e.textContent.slice(0, 40)} ${ratio.toFixed(2)}`).slice(0, 10),

    // Elements that reach beyond the window without a box that scrolls around them.
    tooWide: () => [...document.querySelectorAll("body *")].filter(e =>
      shown(e) && e.getBoundingClientRect().right > askedWidth + 1 && !e.closest(".scroll, nav") && !e.closest("svg")
    ).map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5),

    // How many drawings of each chart are shown: one.
    drawings: () => [...document.querySelectorAll("figure")].map(f => [...f.querySelectorAll(":scope > svg")].filter(shown).length),

    // A badge or a heading of a column whose one word is broken over lines.
    brokenWords: () => [...document.querySelectorAll(".badge, th")].filter(e => shown(e) && !/[\s-]/.test(e.textContent.replace(/^[✓✗!i] /, "").trim()) && e.textContent.length < 24
      && e.getClientRects().length > 0 && lines(e) > 1).map(e => e.textContent).slice(0, 5),

    // Names or values that run out of their box into a neighbour's.
    overrun: () => [...document.querySelectorAll(".facts > div, .facts dt, .facts dd, .tile")].filter(e => shown(e) && e.scrollWidth > e.clientWidth + 1)
      .map(e => e.textContent.slice(0, 60)).slice(0, 5),

    // A chart that leaves more than a quarter of its figure empty.
    unfilled: () => [...document.querySelectorAll("figure")].filter(f => drawn().some(s => s.parentElement === f && s.getBoundingClientRect().width < 0.74 * f.clientWidth))
      .map(f => f.textContent.slice(0, 40)).slice(0, 5),

    smallestText: () => Math.min(...drawn().flatMap(s => [...s.querySelectorAll("text")]).filter(t => t.textContent).map(t => t.getBoundingClientRect().height)),

    // Labels that are cut off at the edge of their chart.
    cutLabels: () => drawn().flatMap(s => {
      const box = s.getBoundingClientRect();
      return [...s.querySelectorAll("text")].filter(t => {
        const r = t.getBoundingClientRect();
        return r.width && (r.left < box.left - 2 || r.right > box.right + 2);
      }).map(t => t.textContent);
    }),

    // Short names (28 letters at most) that a drawing has no room for; the whole name is in the title of their group.
    cutNames: () => drawn().flatMap(s => [...s.querySelectorAll("g > text")]).filter(t => t.textContent.endsWith("…")).map(t =>
      (t.parentElement.querySelector("title")?.textContent || "").split(/ · |: /).find(name => name.startsWith(t.textContent.slice(0, -1).trim())) || ""
    ).filter(name => name && name.length <= 28).slice(0, 5),

    // Charts without a name for screen readers, and ids used twice.
    nameless: () => [...document.querySelectorAll("svg[role=img]")].filter(s =>
      !s.getAttribute("aria-labelledby").split(" ").every(id => document.getElementById(id)?.textContent)).length,
    repeatedIds: () => { const ids = [...document.querySelectorAll("[id]")].map(e => e.id); return ids.filter((id, n) => ids.indexOf(id) !== n); },
  };
})();
