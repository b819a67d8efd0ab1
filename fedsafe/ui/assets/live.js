"use strict";
// Fetches the parts of a page that move. Without this script the page is the same, and its link "Refresh" does the rest.
(() => {
  const parts = [...document.querySelectorAll("[data-live]")];
  const button = document.getElementById("pause");
  const said = document.getElementById("live-status");
  if (!parts.length || !button || !said) return;
  const tags = new Map();
  let paused = false;

  const say = (text) => { if (said.textContent !== text) said.textContent = text; };

  // What a reader opened stays open, and the keyboard stays where it was.
  const replace = (part, text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    for (const box of part.querySelectorAll("details[id]")) {
      const same = fresh.querySelector("#" + CSS.escape(box.id));
      if (same) same.open = box.open;
    }
    const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const active = part.contains(document.activeElement) ? document.activeElement : null;
    const place = active && [...part.querySelectorAll("a, summary, button, [tabindex]")].indexOf(active);
    part.replaceChildren(...fresh.childNodes);
    part.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] || 0; });
    if (active) {
      const named = active.id && document.getElementById(active.id);
      (named || part.querySelectorAll("a, summary, button, [tabindex]")[place])?.focus({ preventScroll: true });
    }
  };

  const follow = async (part) => {
    const url = part.dataset.live;
    if (!paused && !document.hidden) {
      try {
        const headers = tags.has(url) ? { "If-None-Match": tags.get(url) } : {};
        const answer = await fetch(url, { headers, cache: "no-store" });
        if (answer.ok) {
          const text = await answer.text();
          if (!paused) {
            replace(part, text);
            tags.set(url, answer.headers.get("ETag"));
          }
        }
        if (answer.ok || answer.status === 304) say(said.dataset.what);
        else say("It cannot be read any more: it may have been moved or deleted.");
      } catch {
        say("fedsafe ui does not answer; this is what it said last.");
      }
    }
    setTimeout(follow, Number(part.dataset.every), part);
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused." : said.dataset.what);
  });
  for (const part of parts) follow(part);
})();
