// The market's page with a wallet: node wallet.mjs URL RPC KEY DEEDS
//
// URL is where the market answers, RPC the node. KEY is the wallet's, whose address holds tokens and has no account yet.
// DEEDS are transactions of others, as JSON: a `bid` for order 1, and `activate` for lease 1.

import { execFileSync } from "node:child_process";
import { ensure, inBrowser } from "./browser.mjs";

const [site, node, key, deedsJson] = process.argv.slice(2);
const deeds = JSON.parse(deedsJson);

async function rpc(method, params = []) {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const answer = await fetch(node, { method: "POST", headers: { "content-type": "application/json" }, body });
    return answer.json();
}

async function result(method, params) {
    const { result, error } = await rpc(method, params);
    ensure(!error, `${method}: ${JSON.stringify(error)}`);
    return result;
}

const cast = (...args) => execFileSync("node_modules/.bin/cast", args, { encoding: "utf8" }).trim();
const owner = cast("wallet", "address", key);

const home = await result("eth_chainId");

/// A wallet that signs what it is asked to with its key, as a browser's does: it may refuse, be on another chain, and go to
/// another one as soon as it was asked which it is on (`leaves`).
const wallet = { chain: home, leaves: false, refuses: false, shows: owner, sent: 0 };

async function request({ method, params }) {
    switch (method) {
        case "eth_requestAccounts":
        case "eth_accounts":
            return { result: [wallet.shows] };
        case "eth_chainId": {
            const { chain } = wallet;
            if (wallet.leaves) wallet.chain = "0x1";
            return { result: chain };
        }
        case "wallet_switchEthereumChain":
            wallet.chain = params[0].chainId;
            return { result: null };
        case "eth_sendTransaction": {
            if (wallet.refuses) return { error: { code: 4001, message: "User rejected the request." } };
            const [{ from, to, data, chainId }] = params;
            ensure(from.toLowerCase() === owner.toLowerCase(), `${from} is not the wallet's`);
            ensure(chainId === home, `a transaction is for chain ${chainId}`);
            if (chainId !== wallet.chain) return { error: { code: -32602, message: `the wallet is on chain ${wallet.chain}` } };
            wallet.sent += 1;
            const raw = cast("mktx", "--private-key", key, "--rpc-url", node, "--gas-limit", "3000000", to, data);
            return rpc("eth_sendRawTransaction", [raw]);
        }
        default:
            return rpc(method, params);
    }
}

/// What a wallet puts into each page: it announces itself, or, as older ones do, only stands in the window.
function inject(announces) {
    const listeners = {};
    const provider = {
        on(event, listener) {
            listeners[event] = listener;
        },
        // What its own window would do.
        tell(event) {
            listeners[event]();
        },
        async request(call) {
            const { result, error } = await window.walletRequest(call);
            if (error) throw Object.assign(new Error(error.message), error);
            return result;
        },
    };
    if (!announces) {
        window.ethereum = provider;
        return;
    }
    window.testwallet = provider;
    const detail = Object.freeze({ info: { uuid: "1", name: "Testwallet", icon: "data:,", rdns: "example.test" }, provider });
    const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
    window.addEventListener("eip6963:requestProvider", announce);
    announce();
}

async function withWallet(browser, announces = true) {
    await browser.context.exposeFunction("walletRequest", request);
    await browser.context.addInitScript(inject, announces);
}

const status = page => page.locator("#wallet [role=status]");
const step = (page, number) => page.locator("#plan > li").nth(number - 1);

async function connect(page) {
    await page.getByRole("button", { name: "Connect Testwallet" }).click();
    await status(page).filter({ hasText: "Connected" }).waitFor();
}

/// Sends all that a plan holds, and goes to where it leads.
async function carryOut(page) {
    await connect(page);
    await page.getByRole("button", { name: /^Send/ }).click();
    await arrive(page);
}

async function arrive(page) {
    const link = page.getByRole("link", { name: "See what came of it" });
    await link.waitFor();
    ensure(await link.evaluate(one => one === document.activeElement), "what came of it has not the focus");
    await link.click();
    await page.waitForLoadState();
}

/// Goes on with the keyboard to what has a text or an id.
async function tabTo(page, name) {
    for (let presses = 0; presses < 60; presses += 1) {
        await page.keyboard.press("Tab");
        const at = await page.evaluate(() => [document.activeElement.id, document.activeElement.textContent.trim()]);
        if (at.includes(name)) return;
    }
    throw new Error(`the keyboard does not lead to ${name}`);
}

await inBrowser(async browser => {
    await withWallet(browser);

    // Paying in, refused at first.
    let page = await browser.open(`${site}/fund`);
    await connect(page);
    ensure((await page.inputValue("#owner")) === owner, "the wallet's address is not taken over");
    ensure((await status(page).textContent()).includes("which holds 500.00 USD"), "what the wallet holds is not shown");
    await page.getByLabel("Amount").fill("a lot");
    await page.getByRole("button", { name: "See what that takes" }).click();
    ensure((await page.getAttribute("#amount", "aria-invalid")) === "true", "a mistake is not marked");
    ensure((await page.textContent("#amount-fault")).includes("a lot"), "a mistake is not named");
    await browser.check(page, "fund-wrong");
    await page.getByLabel("Amount").fill("12.5");
    await page.getByRole("button", { name: "See what that takes" }).click();
    ensure((await page.locator("#plan > li").count()) === 2, "paying in does not take two steps");
    ensure((await step(page, 1).textContent()).includes("12.50 USD"), "the amount is not shown before it is asked for");
    await connect(page);
    await browser.check(page, "fund");
    wallet.refuses = true;
    await page.getByRole("button", { name: "Send these 2 transactions" }).click();
    await step(page, 1).getByText("You refused it in the wallet; nothing was sent.").waitFor();
    ensure(wallet.sent === 0, "something was sent");
    wallet.refuses = false;
    await page.getByRole("button", { name: "Send these 2 transactions" }).click();
    await arrive(page);
    ensure(wallet.sent === 2, `${wallet.sent} transactions were sent`);
    ensure((await page.locator("#money-live").textContent()).includes("12.50 USD"), "the account does not show what was paid in");
    const account = page.url();
    await browser.check(page, "account-funded");

    // What is not there any more is not taken out: the contract says so, and the page in words.
    const late = await browser.open(`${account}/withdraw?amount=5`);
    await page.getByRole("link", { name: "Take out" }).click();
    await page.getByLabel("Amount").fill("10");
    await page.getByRole("button", { name: "See what that takes" }).click();
    await carryOut(page);
    ensure((await page.locator("#money-live").textContent()).includes("2.50 USD"), "the account does not show what was taken out");
    await connect(late);
    await late.getByRole("button", { name: "Send it" }).click();
    const refusal = step(late, 1).getByText(/^Refused: .*2\.50 USD/);
    await refusal.waitFor();
    ensure(wallet.sent === 3, "what would be refused was sent");
    await browser.check(late, "refused");
    await late.close();

    // The same with the keyboard alone.
    await page.goto(`${site}/fund`);
    await tabTo(page, "Connect Testwallet");
    await page.keyboard.press("Enter");
    await status(page).filter({ hasText: "Connected" }).waitFor();
    await page.evaluate(() => document.getElementById("q").focus());
    await tabTo(page, "amount");
    await page.keyboard.type("20");
    await page.keyboard.press("Enter");
    await page.waitForURL(/amount=20/);
    await tabTo(page, "Connect Testwallet");
    await page.keyboard.press("Enter");
    await status(page).filter({ hasText: "Connected" }).waitFor();
    await page.evaluate(() => document.querySelector("#plan summary").focus());
    await tabTo(page, "Send these 2 transactions");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "See what came of it" }).waitFor();
    await page.keyboard.press("Enter");
    await page.waitForURL(account);
    ensure((await page.locator("#money-live").textContent()).includes("22.50 USD"), "the keyboard paid nothing in");

    // Another chain, another account.
    wallet.chain = "0x1";
    await page.goto(`${site}/fund?owner=${owner}&amount=1`);
    await page.getByRole("button", { name: "Connect Testwallet" }).click();
    await status(page).filter({ hasText: "on another chain" }).waitFor();
    ensure((await page.getByRole("button", { name: /^Send/ }).count()) === 0, "it would send on another chain");
    await browser.check(page, "other-chain");
    await page.getByRole("button", { name: "Switch to chain 31337" }).click();
    await status(page).filter({ hasText: "Connected" }).waitFor();
    wallet.shows = "0x00000000000000000000000000000000000000AA";
    await page.reload();
    await page.getByRole("button", { name: "Connect Testwallet" }).click();
    await status(page).filter({ hasText: `has to be sent by ${owner}` }).waitFor();
    ensure((await page.getByRole("button", { name: /^Send/ }).count()) === 0, "another account would send it");
    wallet.shows = owner;
    await page.evaluate(() => window.testwallet.tell("accountsChanged"));
    await page.getByRole("button", { name: "Send these 2 transactions" }).waitFor();

    // One that changes chain when it is connected already, and says so to nobody: nothing is sent there.
    const before = wallet.sent;
    wallet.chain = "0x1";
    await page.getByRole("button", { name: /^Send/ }).click();
    await step(page, 1).getByText("on another chain").waitFor();
    const back = page.getByRole("button", { name: "Switch to chain 31337" });
    await back.waitFor();
    ensure((await status(page).textContent()).includes("on another chain"), "it is not said what is wrong with the wallet");
    ensure((await page.getByRole("button", { name: /^(Send|Go on)/ }).count()) === 0, "it would send on another chain");
    await back.click();
    await status(page).filter({ hasText: "Connected" }).waitFor();
    // And one that changes it after it was looked at: the transaction says for which chain it is.
    wallet.leaves = true;
    await page.getByRole("button", { name: /^Send/ }).click();
    await step(page, 1).getByText("the wallet is on chain 0x1").waitFor();
    wallet.leaves = false;
    await back.click();
    await status(page).filter({ hasText: "Connected" }).waitFor();
    ensure(wallet.sent === before, "something was sent to another chain");

    // An order, from the account's page to its lease's end.
    await page.goto(account);
    await page.getByRole("link", { name: "Place an order" }).click();
    await page.getByLabel("Hash of the pod").fill("0x12");
    await page.getByLabel("The most it may cost").fill("0.05/h");
    await page.getByRole("button", { name: "See what that takes" }).click();
    ensure((await page.textContent("#pod-fault")).includes("0x12"), "a mistake is not named");
    await browser.check(page, "place-wrong");
    await page.getByLabel("Hash of the pod").fill(`0x${"7".repeat(64)}`);
    await page.getByLabel("Coverage").fill("5");
    await page.getByLabel("Where bidders find the pod").fill("https://payer.example/pod");
    await page.getByRole("button", { name: "See what that takes" }).click();
    ensure((await page.locator("#plan > li").count()) === 4, "placing an order does not take four steps");
    await browser.check(page, "place");
    await carryOut(page);
    await page.getByRole("link", { name: "Order 1", exact: true }).click();
    const state = page.locator("#state");
    ensure((await state.textContent()).includes("Nobody leads"), "somebody leads already");

    // A bid shows up by itself.
    const loaded = await page.evaluate(() => (window.loaded = Math.random()));
    await result("eth_sendTransaction", [deeds.bid]);
    await state.filter({ hasText: "Best bid: 0.03 USD/h" }).waitFor();
    await page.locator("#bids-live").getByRole("cell", { name: /0\.03 USD/ }).waitFor();
    ensure((await page.evaluate(() => window.loaded)) === loaded, "the page was loaded anew");
    await page.reload();
    await page.getByRole("link", { name: "Award it" }).click();
    await browser.check(page, "award");
    await carryOut(page);
    await page.getByRole("link", { name: "Lease 1", exact: true }).click();
    ensure((await state.textContent()).includes("starting"), "the lease does not wait for its start");
    await result("eth_sendTransaction", [deeds.activate]);
    await state.filter({ hasText: "active" }).waitFor();
    await page.getByLabel("Close it because").selectOption({ label: "its payer moved elsewhere" });
    await page.getByRole("button", { name: "Close it" }).click();
    await browser.check(page, "close");
    await carryOut(page);
    ensure((await state.textContent()).includes("its payer moved elsewhere"), "the lease does not say why it was closed");
    ensure((await page.getByRole("button", { name: "Close it" }).count()) === 0, "it can be closed twice");

    // The order is over once somebody says that its lease was started, which brings the deposit back.
    await page.goto(`${site}/orders/1`);
    ensure((await state.textContent()).includes("awarded"), "the order was not awarded");
    await page.getByRole("link", { name: "Settle it" }).click();
    await carryOut(page);
    ensure((await state.textContent()).includes("its lease started"), "the order is not over");
    await page.getByRole("link", { name: "Claim the deposit" }).click();
    await carryOut(page);

    // One that is taken back, with what Auction and Leases may do already; its deposit comes back.
    const query = new URLSearchParams({ owner, pod: `0x${"8".repeat(64)}`, max: "0.05/h" });
    await page.goto(`${site}/orders/new?${query}`);
    ensure((await page.locator("#plan > li").count()) === 2, "what was allowed is asked for again");
    await carryOut(page);
    await page.getByRole("link", { name: "Order 2", exact: true }).click();
    await page.getByRole("link", { name: "Take it back" }).click();
    await carryOut(page);
    ensure((await state.textContent()).includes("its payer took it back"), "the order is not over");
    await page.getByRole("link", { name: "Claim the deposit" }).click();
    await carryOut(page);
});

// A wallet that only stands in the window, and a browser without any.
await inBrowser(async browser => {
    await withWallet(browser, false);
    const page = await browser.open(`${site}/fund`);
    await page.getByRole("button", { name: "Connect the browser's wallet" }).click();
    await status(page).filter({ hasText: "Connected" }).waitFor();
    await page.getByRole("link", { name: "What this address has" }).click();
    await page.waitForURL(`${site}/owners/*`);
    ensure((await page.textContent("#accounts-live")).includes("USD"), "the wallet's account is not shown");
});
await inBrowser(async browser => {
    const page = await browser.open(`${site}/fund?owner=${owner}&amount=1`);
    await status(page).filter({ hasText: "This browser has no wallet." }).waitFor();
});
