// Keeps what is marked `data-live` up to date: the page is fetched again every few seconds, and what changed is put in
// place, node by node, so that focus, scroll, what is selected and what is unfolded stay as they are. Without this script
// a page is the same, as of the moment that it names.

const EVERY = 3000;

/// Whether something was entered there and not sent: that is not taken away from under somebody's hands.
function isEdited(part) {
    return [...part.querySelectorAll("input, textarea")].some(field => field.value !== field.defaultValue);
}

/// Whether the keyboard is in a row without a name: it would become another one under somebody's hands.
function isHeld(part) {
    const row = document.activeElement?.closest("tr:not([id])");
    return Boolean(row) && part.contains(row);
}

/// Makes `old` what `fresh` is. Both are the same kind of node.
function become(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (!(old instanceof Element)) {
        old.nodeValue = fresh.nodeValue;
        return;
    }
    // What is unfolded is the reader's.
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    fill(old, fresh);
}

/// Gives `old` the children of `fresh`. One with an id stays the one that it is, wherever it comes to stand.
function fill(old, fresh) {
    const wanted = new Set([...fresh.children].map(child => child.id).filter(Boolean));
    for (const child of [...old.children]) if (child.id && !wanted.has(child.id)) child.remove();
    const known = new Map([...old.children].filter(child => child.id).map(child => [child.id, child]));
    let at = old.firstChild;
    for (const node of [...fresh.childNodes]) {
        const next = node.id ? known.get(node.id) : at?.id ? null : at;
        if (next?.nodeName !== node.nodeName) {
            old.insertBefore(node, at);
            continue;
        }
        if (next === at) at = at.nextSibling;
        else old.insertBefore(next, at);
        become(next, node);
    }
    while (at) {
        const rest = at.nextSibling;
        at.remove();
        at = rest;
    }
}

/// Whether the page is as it would be if it was loaded anew.
async function refresh() {
    if (!document.querySelector("[data-live]")) return true;
    const response = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
    if (!response.ok) return false;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
        const next = fresh.getElementById(part.id);
        if (next && !isEdited(part) && !isHeld(part)) become(part, next);
    }
    return true;
}

async function watch() {
    if (!document.hidden) {
        // A server that is away for a moment is asked again.
        const done = await refresh().catch(() => false);
        const stale = document.getElementById("stale");
        if (stale) stale.hidden = done;
    }
    setTimeout(watch, EVERY);
}

setTimeout(watch, EVERY);
