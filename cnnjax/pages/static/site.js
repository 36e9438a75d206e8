"use strict";
// What the theme leaves out for keyboards and screen readers. It adds elements while a page is open, so look again then.
function name() {
  document.querySelectorAll(".md-search[role=dialog]:not([aria-label])").forEach((box) => box.setAttribute("aria-label", "Search"));
  document.querySelectorAll("pre > code:not([tabindex])").forEach((code) => code.setAttribute("tabindex", "0"));
  document.querySelectorAll("nav.md-code__nav").forEach((nav, i) => {
    const label = `Block of code ${i + 1}`;
    if (nav.getAttribute("aria-label") !== label) nav.setAttribute("aria-label", label);
  });
}
new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });
name();
