// The provider's admin page, as its operator uses it: node admin.mjs URL LEASE
//
// URL is what `roadstead provider admin` prints, LEASE the number of a lease that runs there.

import { ensure, inBrowser } from "./browser.mjs";

const [login, lease] = process.argv.slice(2);
const site = new URL("/", login).href;

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
    await browser.check(page, "overview");

    await page.getByRole("link", { name: lease, exact: true }).first().click();
    ensure((await page.textContent("h1")) === `Lease ${lease}`, `this is not lease ${lease}`);
    ensure((await page.getByRole("region", { name: "Events" }).textContent()).includes("running"), "no events");
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

    // A page that somebody else has made cannot send a form, whatever the browser knows.
    const foreign = await browser.context.newPage();
    await foreign.setContent(`<form method="post" action="${site}mode"><input name="mode" value="maintenance"><input name="form" value="x"><button>Win</button></form>`);
    const answer = foreign.waitForResponse(response => response.url() === `${site}mode`);
    await foreign.getByRole("button").click();
    ensure([401, 403].includes((await answer).status()), "a foreign page sent a form");
    await foreign.close();

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

    await page.getByRole("button", { name: "Sign out" }).click();
    await browser.open(site, { answers: 401 });
});
