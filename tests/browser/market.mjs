// The market's pages, as whoever reads them sees them: node market.mjs URL
//
// URL is where the market answers. It has some history, with one of each thing that there is a page of.

import { ensure, inBrowser } from "./browser.mjs";

const [site] = process.argv.slice(2);

// A page of each kind, found by the first link to one on another page.
const KINDS = [
    ["glance", "/", null],
    ["providers", "/providers", null],
    ["provider", "/providers", /^\/providers\/0x/],
    ["orders", "/orders", null],
    ["order", "/orders", /^\/orders\/\d/],
    ["leases", "/leases", null],
    ["lease", "/leases?state=closed", /^\/leases\/\d/],
    ["lease-active", "/leases?state=active", /^\/leases\/\d/],
    ["apps", "/apps", null],
    ["app", "/apps", /^\/apps\//],
    ["account", "/leases", /^\/accounts\/0x/],
    ["owner", "/apps", /^\/owners\/0x/],
    ["fund-empty", "/fund", null],
    ["place-empty", "/orders/new", null],
    ["nothing-found", "/search?q=nobody", null, 404],
    ["not-here", "/leases/999999999", null, 404],
    ["not-understood", "/leases/x", null, 400],
    ["nowhere", "/elsewhere", null, 404],
];

async function links(page) {
    return page.locator("main a[href]").evaluateAll(all => all.map(link => link.getAttribute("href")));
}

/// Where each kind of page is.
async function discover(browser) {
    const found = [];
    for (const [name, from, link, answers = 200] of KINDS) {
        const page = await browser.open(site + from, { answers });
        const path = link ? (await links(page)).find(href => link.test(href)) : from;
        ensure(path, `${from} has no link to a page of the kind ${name}`);
        found.push({ name, path, answers });
        await page.close();
    }
    return found;
}

/// What a page has to be for whoever does not look at it: one heading of the first order and none left out, a title,
/// landmarks, tables with captions, drawings with words.
async function outline(page, name) {
    const levels = await page.locator("h1, h2, h3, h4").evaluateAll(all => all.map(one => Number(one.tagName[1])));
    ensure(levels[0] === 1 && levels.filter(level => level === 1).length === 1, `${name}: the headings are ${levels}`);
    ensure(levels.every((level, index) => index === 0 || level <= levels[index - 1] + 1), `${name}: a heading is left out: ${levels}`);
    for (const role of ["banner", "main", "contentinfo", "navigation", "search"]) {
        ensure((await page.getByRole(role).count()) >= 1, `${name}: there is no ${role}`);
    }
    const bare = await page.locator("table:not(:has(caption)), th:not([scope])").count();
    ensure(bare === 0, `${name}: ${bare} tables without a caption or headings without a scope`);
    const mute = await page.locator("svg[role=img]:not(:has(title)), svg[role=img]:not(:has(desc))").count();
    ensure(mute === 0, `${name}: ${mute} drawings say nothing`);
    const outward = await page.locator("a[href^=http]:not([rel='nofollow noreferrer noopener'])").count();
    ensure(outward === 0, `${name}: ${outward} links of strangers are trusted`);
    const lured = await page.locator("main b, main script:not([src^='/page/']), a[href^='javascript'], main img").count();
    ensure(lured === 0, `${name}: what a stranger wrote became markup`);
}

await inBrowser(async browser => {
    const pages = await discover(browser);
    for (const { name, path, answers } of pages) {
        const page = await browser.open(site + path, { answers });
        await outline(page, name);
        await browser.check(page, name);
        await page.close();
    }

    // The keyboard alone: past the site's navigation, into the search, to the page that is meant.
    const page = await browser.open(site);
    await page.keyboard.press("Tab");
    ensure((await page.evaluate(() => document.activeElement.textContent)) === "Skip to the content", "the first stop is not the skip link");
    await page.keyboard.press("Enter");
    ensure((await page.evaluate(() => document.activeElement.id)) === "main", "the skip link does not lead to the content");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Shift+Tab");
    ensure((await page.evaluate(() => document.activeElement.id)) === "q", "the search does not stand before the content");
    await page.keyboard.type("lease 1");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/leases/1");
    ensure((await page.textContent("h1")) === "Lease 1", "the search does not find lease 1");
    await page.close();
});

// Lists go on where a page ends, and each row is on one page.
await inBrowser(async browser => {
    const page = await browser.open(`${site}/leases`);
    const ids = () => page.locator("tbody th").allInnerTexts();
    const first = await ids();
    await page.getByRole("link", { name: "Further" }).click();
    await page.waitForURL(/before=/);
    const second = await ids();
    ensure(first.length === 25 && second.length > 0, `there are ${first.length} and ${second.length} leases`);
    ensure(!second.some(id => first.includes(id)), "a lease is on two pages");
    await page.getByRole("link", { name: "To the beginning" }).click();
    await page.waitForURL(/leases$/);
    ensure((await ids()).join() === first.join(), "the beginning is another one");
});

// A provider that wrote markup, and characters that turn the direction around, is read as it is written.
await inBrowser(async browser => {
    const page = await browser.open(`${site}/providers`);
    ensure((await page.textContent("main")).includes("<b>eu\u{fffd}</b>"), "what was written is not shown as it is");
    await page.getByRole("row").filter({ hasText: "<b>eu" }).getByRole("link").first().click();
    await page.waitForURL("**/providers/0x*");
    ensure((await page.textContent("main")).includes("javascript:alert(1)"), "what was written is not shown as it is");
    await outline(page, "markup");
});

// Without scripts each page says the same.
await inBrowser(async browser => {
    for (const { name, path, answers } of await discover(browser)) {
        const page = await browser.open(site + path, { answers });
        await outline(page, name);
        ensure((await page.locator("main").innerText()).length > 40, `${name}: there is nothing to read`);
        await page.close();
    }
}, { javaScriptEnabled: false });
