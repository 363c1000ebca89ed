// The provider's admin page, as its operator uses it: node admin.mjs URL LEASE
//
// URL is what `roadstead provider admin` prints, LEASE the number of a lease that runs there.

import { ensure, inBrowser } from "./browser.mjs";

const [login, lease] = process.argv.slice(2);
const site = new URL("/", login).href;

/// Waits until something is so, however long that takes within a minute.
async function until(words, holds) {
    for (const end = Date.now() + 60_000; !(await holds()); await new Promise(next => setTimeout(next, 100))) {
        ensure(Date.now() < end, `not so in time: ${words}`);
    }
}

/// What an operator has before it while it works: where it types and what, what it looks at, what is unfolded, and whether
/// a row is still the same one.
async function state(page) {
    return page.evaluate(row => ({
        focus: document.activeElement?.name, typed: document.querySelector("[name=why]")?.value,
        top: Math.round(document.getElementById("machine").getBoundingClientRect().top),
        open: document.querySelector("details")?.open, same: document.getElementById(row)?.marked === true,
    }), `pod-${lease}`);
}

await inBrowser(async browser => {
    const stranger = await browser.open(site, { answers: 401 });
    ensure((await stranger.textContent("main")).includes("roadstead provider admin"), "a stranger is not told what to do");
    await browser.check(stranger, "signed-out");
    await browser.open(new URL("/login?token=0000", site).href, { answers: 401 });

    const page = await browser.open(login);
    ensure(page.url() === site, `the token stays in the address: ${page.url()}`);
    const [cookie] = await browser.context.cookies();
    ensure(cookie.httpOnly && cookie.sameSite === "Strict", `the cookie is ${JSON.stringify(cookie)}`);
    ensure(!login.includes(cookie.value.split(".")[1]), "the cookie is the token");
    const pods = page.getByRole("region", { name: "Pods" });
    ensure((await pods.textContent()).includes("running"), "the pod is not shown");
    ensure((await pods.getByRole("img").count()) >= 2, "there are no graphs");
    ensure((await pods.textContent()).includes("echo:7000/tcp at "), "the public port is not shown");
    ensure((await pods.textContent()).includes("it has no certificate"), "nothing is said of the host without one");
    await browser.check(page, "overview");

    // It brings itself up to date, and takes nothing out of the hands of whoever works with it.
    await page.getByText("Maintenance", { exact: true }).click();
    await page.locator("[name=why]").fill("half a sen");
    await page.evaluate(row => document.getElementById(row).marked = true, `pod-${lease}`);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    const before = await state(page);
    ensure(before.focus === "why" && before.open && before.same, `the scene is not set: ${JSON.stringify(before)}`);
    const [now, tiles] = await Promise.all(["#now", "#tiles"].map(part => page.textContent(part)));
    const other = await browser.open(site);
    await other.getByRole("button", { name: "Drain" }).click();
    await until("the mode is told", async () => (await page.textContent("#warnings")).includes("No quotes"));
    await until("the tiles are new", async () => (await page.textContent("#tiles")) !== tiles);
    ensure((await page.textContent("#now")) !== now, "the page says that it is as of before");
    const after = await state(page);
    // What is looked at stays where it is, but for what browsers round.
    const stays = Math.abs(after.top - before.top) <= 2;
    const same = JSON.stringify({ ...after, top: 0 }) === JSON.stringify({ ...before, top: 0 });
    ensure(stays && same, `it was ${JSON.stringify(before)}, and is ${JSON.stringify(after)}`);
    ensure((await page.textContent("#mode-now")) === "open", "the form was changed under somebody's hands");
    await page.locator("[name=why]").fill("");
    await until("the form's part goes on", async () => (await page.textContent("#mode-now")) === "draining");
    ensure((await state(page)).open, "what was unfolded is folded");
    await other.getByRole("button", { name: "Take new leases" }).click();
    await until("the warning goes", async () => (await page.textContent("#warnings")) === "");
    await page.bringToFront();

    await page.getByRole("link", { name: lease, exact: true }).first().click();
    ensure((await page.textContent("h1")) === `Lease ${lease}`, `this is not lease ${lease}`);
    ensure((await page.getByRole("region", { name: "Events" }).textContent()).includes("running"), "no events");
    const certificates = page.getByRole("region", { name: "Certificates" }).getByRole("row");
    const good = await certificates.filter({ hasText: "admin.example.org" }).textContent();
    ensure(good.includes("Pebble") && / UTC/.test(good), `the certificate is told as ${good}`);
    const lost = await certificates.filter({ hasText: "lost.example.org" }).textContent();
    ensure(lost.includes("did not find the proof"), `what is wrong is told as ${lost}`);
    ensure((await page.getByRole("region", { name: "Public ports" }).textContent()).includes("7000/tcp"), "no ports");
    await browser.check(page, "lease");

    // Prices: a mistake is named, a good list is shown with what it comes to, and listed on chain.
    await page.getByRole("link", { name: "Prices" }).click();
    await page.getByLabel("A processor").fill("a lot");
    await page.getByRole("button", { name: "See what that comes to" }).click();
    ensure((await page.getAttribute("#cpu", "aria-invalid")) === "true", "a mistake is not marked");
    ensure((await page.textContent("#cpu-fault")).includes("a lot"), "a mistake is not named");
    ensure((await page.getByRole("button", { name: /List these/ }).count()) === 0, "a mistake could be listed");
    await browser.check(page, "prices-wrong");
    await page.getByLabel("A processor").fill("0.02/h");
    await page.getByRole("button", { name: "See what that comes to" }).click();
    ensure((await page.getByRole("columnheader", { name: "Then" }).count()) === 1, "there is no comparison");
    await browser.check(page, "prices");
    await page.getByRole("button", { name: /List these/ }).click();
    ensure((await page.textContent("[role=status]")).includes("prices are listed"), "the list was not taken");
    // What the chain has no place for is asked without a transaction.
    await page.getByRole("link", { name: "Prices", exact: true }).click();
    await page.getByLabel("A GPU").fill("0.72/h");
    await page.getByLabel("A public port").fill("0.36/h");
    await page.getByLabel("A GiB of egress in 30 days").fill("nothing");
    await page.getByRole("button", { name: "See what that comes to" }).click();
    ensure((await page.textContent("#egress-fault")).includes("nothing"), "a mistake is not named");
    await page.getByLabel("A GiB of egress in 30 days").fill("0.1024/mo");
    await page.getByRole("button", { name: "See what that comes to" }).click();
    await browser.check(page, "prices-extra");
    await page.getByRole("button", { name: "Ask these prices" }).click();
    ensure((await page.textContent("[role=status]")).includes("prices are listed"), "the other prices were not taken");
    ensure((await page.textContent("main")).includes("0.72/h"), "the other prices are not shown");

    // A page that somebody else has made cannot send a form, whatever the browser knows.
    const foreign = await browser.context.newPage();
    await foreign.setContent(`<form method="post" action="${site}mode"><input name="mode" value="maintenance"><input name="form" value="x"><button>Win</button></form>`);
    const answer = foreign.waitForResponse(response => response.url() === `${site}mode`);
    await foreign.getByRole("button").click();
    ensure([401, 403].includes((await answer).status()), "a foreign page sent a form");
    // It stays open: a click on the page that comes in front of it by its end may get lost.
    await page.bringToFront();

    await page.getByRole("button", { name: "Drain" }).click();
    ensure((await page.textContent("#mode-now")) === "draining", "it does not drain");
    ensure((await page.textContent(".warning")).includes("No quotes"), "nothing warns of it");
    await browser.check(page, "draining");
    await page.getByText("Maintenance", { exact: true }).click();
    await page.getByLabel(/how many hours/).fill("2");
    await page.getByLabel(/payers are told/).fill("<b>a new disk</b>");
    await page.getByRole("button", { name: "Begin maintenance" }).click();
    ensure((await page.textContent("#mode-now")) === "maintenance", "there is no maintenance");
    ensure((await page.locator("main b").count()) === 0, "words became markup");

    const left = await browser.open(site);
    await page.getByRole("button", { name: "Sign out" }).click();
    await browser.open(site, { answers: 401 });
    await until("it says that it is out of date", () => left.locator("#stale").isVisible());
});

// Without scripts all is there, and all can be done.
await inBrowser(async browser => {
    const page = await browser.open(login);
    ensure((await page.getByRole("region", { name: "Pods" }).textContent()).includes("running"), "the pod is not shown");
    ensure((await page.textContent("#mode-now")) === "maintenance", "what was done is not so");
    await page.getByRole("button", { name: "Take new leases" }).click();
    ensure((await page.textContent("#mode-now")) === "open", "it takes nothing new");
    await page.getByText("Maintenance", { exact: true }).click();
    await page.getByLabel(/payers are told/).fill("<b>a new disk</b>");
    await page.getByRole("button", { name: "Begin maintenance" }).click();
    ensure((await page.textContent("#mode-now")) === "maintenance", "there is no maintenance");
    await page.getByRole("link", { name: lease, exact: true }).first().click();
    ensure((await page.getByRole("region", { name: "Certificates" }).textContent()).includes("Pebble"), "no certificates");
}, { javaScriptEnabled: false });
