// Keeps what is marked `data-live` up to date: the page is fetched again every few seconds, and what changed is put in
// place. Without this script a page is the same, as of the block that it names.

const EVERY = 3000;

async function refresh() {
    if (document.hidden || !document.querySelector("[data-live]")) return;
    const response = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
        const next = fresh.getElementById(part.id);
        // What somebody works with is not taken away from under their hands.
        if (!next || part.contains(document.activeElement) || part.innerHTML === next.innerHTML) continue;
        part.replaceChildren(...next.childNodes);
    }
}

async function watch() {
    // A market that is away for a moment is asked again.
    await refresh().catch(() => {});
    setTimeout(watch, EVERY);
}

setTimeout(watch, EVERY);
