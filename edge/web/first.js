// Before anything is painted: the appearance and language that were chosen on this device.
try {
  const { theme, lang } = JSON.parse(localStorage.getItem('hikyaku.settings')) ?? {};
  if (theme) document.documentElement.dataset.theme = theme;
  if (lang) document.documentElement.lang = lang;
} catch {
  // Nothing chosen, or nothing that can be read: as the system is.
}

// A file of the client did not come, for the network changed or edges are being replaced: again.
addEventListener('error', ({ target }) => {
  const tries = Number(sessionStorage.getItem('hikyaku.tries'));
  if (target.tagName !== 'SCRIPT' || tries >= 5) return;
  sessionStorage.setItem('hikyaku.tries', tries + 1);
  setTimeout(() => location.reload(), 500 * 2 ** tries);
}, true);
