// Hands a plan to a browser wallet (EIP-1193, found by EIP-6963), one transaction at a time. What is sent stands on the
// page: the contract, the function, the bytes. Before the wallet is asked, each is tried with `eth_call`, so that a refusal
// is known, in words, before it costs anything.

const box = document.getElementById("wallet");
const buttons = box.querySelector(".buttons");
const plan = document.getElementById("plan");
const chain = "0x" + BigInt(box.dataset.chain).toString(16);

const POLL = 1000;
const POLLS = 600;

let wallet;
let from;
let next = 0;
let busy = false;

function say(words, where = box.querySelector("[role=status]")) {
    where.textContent = words;
}

function button(words, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", act);
    return made;
}

function link(words, path) {
    const made = document.createElement("a");
    made.className = "button";
    made.href = path;
    made.textContent = words;
    return made;
}

function ask(method, params = []) {
    return wallet.request({ method, params });
}

const wait = time => new Promise(done => setTimeout(done, time));
const word = value => value.toString(16).padStart(64, "0");

function amount(base) {
    const decimals = Number(box.dataset.decimals);
    const digits = base.toString().padStart(decimals + 1, "0");
    const whole = digits.slice(0, digits.length - decimals);
    const fraction = digits.slice(digits.length - decimals).replace(/0+$/, "").padEnd(2, "0");
    return `${whole}.${fraction} ${box.dataset.symbol}`;
}

// The data of a revert, wherever the wallet put it.
function revertData(error, depth = 0) {
    if (typeof error === "string") return /^0x([0-9a-f]{2}){4,}$/i.test(error) ? error : undefined;
    if (typeof error !== "object" || error === null || depth > 4) return undefined;
    for (const key of ["data", "originalError", "error", "cause", "info"]) {
        const found = revertData(error[key], depth + 1);
        if (found) return found;
    }
    return undefined;
}

// Why something failed, in words.
async function reason(error) {
    if (error?.code === 4001) return "You refused it in the wallet; nothing was sent.";
    const data = revertData(error);
    if (data) {
        const answer = await fetch(`/page/revert?data=${data}`).catch(() => undefined);
        if (answer?.ok) return `Refused: ${await answer.text()}.`;
    }
    return `The wallet says: ${error?.message ?? error}`;
}

// Wallets ----------------------------------------------------------------------------------------------------------------

const found = new Map();

function offer(name, provider) {
    if (found.has(provider)) return;
    found.set(provider, name);
    buttons.append(button(`Connect ${name}`, () => connect(provider)));
    if (!wallet) say("");
}

window.addEventListener("eip6963:announceProvider", event => {
    const { info, provider } = event.detail;
    offer(String(info.name).slice(0, 40), provider);
});
window.dispatchEvent(new Event("eip6963:requestProvider"));
// A wallet that does not announce itself.
setTimeout(() => {
    if (found.size === 0 && window.ethereum) offer("the browser's wallet", window.ethereum);
    if (found.size === 0) say("This browser has no wallet.");
}, 300);

async function connect(provider) {
    if (busy) return;
    try {
        if (wallet !== provider) {
            provider.on?.("accountsChanged", () => void connected());
            provider.on?.("chainChanged", () => void connected());
        }
        wallet = provider;
        await ask("eth_requestAccounts");
        await connected();
    } catch (error) {
        say(await reason(error));
    }
}

const elsewhere = `The wallet is on another chain; this market is on chain ${box.dataset.chain}.`;

async function isElsewhere() {
    return BigInt(await ask("eth_chainId")) !== BigInt(chain);
}

// What can be done with the wallet as it is. Answers whether that is all there is to do.
async function connected() {
    if (busy) return false;
    [from] = await ask("eth_accounts");
    const name = found.get(wallet);
    if (!from) {
        buttons.replaceChildren(button(`Connect ${name}`, () => connect(wallet)));
        say("The wallet shows no account to this page.");
        return false;
    }
    if (await isElsewhere()) {
        buttons.replaceChildren(button(`Switch to chain ${box.dataset.chain}`, change));
        say(elsewhere);
        return false;
    }
    const wanted = plan?.dataset.from;
    if (wanted && wanted.toLowerCase() !== from.toLowerCase()) {
        buttons.replaceChildren(button("Look again", () => connect(wallet)));
        say(`The wallet shows ${from}; this has to be sent by ${wanted}. Choose that account in the wallet.`);
        return false;
    }
    const owner = document.getElementById("owner");
    if (owner && !owner.value) owner.value = from;
    buttons.replaceChildren(link("What this address has", `/owners/${from}`));
    if (plan) offerSteps();
    say(`Connected: ${from}, which holds ${amount(await balance())}.`);
    return true;
}

async function balance() {
    const call = { to: box.dataset.token, data: box.dataset.balance + word(BigInt(from)) };
    return BigInt(await ask("eth_call", [call, "latest"]));
}

async function change() {
    try {
        await ask("wallet_switchEthereumChain", [{ chainId: chain }]);
        await connected();
    } catch (error) {
        say(error?.code === 4902 ? `The wallet does not know chain ${box.dataset.chain}: add it there, then connect again.` : await reason(error));
    }
}

// Steps ------------------------------------------------------------------------------------------------------------------

function offerSteps() {
    if (next >= plan.children.length) return;
    const left = plan.children.length - next;
    const words = next > 0 ? "Go on" : left === 1 ? "Send it" : `Send these ${left} transactions`;
    const start = button(words, () => void run());
    start.className = "main";
    buttons.replaceChildren(start);
}

async function run() {
    busy = true;
    buttons.querySelectorAll("button").forEach(one => { one.disabled = true; });
    let block = 0n;
    try {
        while (next < plan.children.length) {
            const step = plan.children[next];
            const at = await send(step, words => say(words, step.querySelector(".status")));
            if (at === undefined) break;
            step.classList.add("done");
            if (at > block) block = at;
            next += 1;
        }
    } finally {
        busy = false;
    }
    if (next === plan.children.length) return arrive(block);
    // The wallet may be the reason: on another chain, with another account.
    try {
        if (await connected()) say(`Step ${next + 1} was not done.`);
    } catch (error) {
        offerSteps();
        say(await reason(error));
    }
    buttons.querySelector("button")?.focus();
}

// Carries one step out. Answers its block (zero if nothing had to be sent), or nothing if it failed. The wallet's chain is
// looked at first, as what is at these addresses elsewhere is anybody's; and the transaction names the chain, as the wallet
// may change it until it sends.
async function send(step, tell) {
    try {
        if (await isElsewhere()) {
            tell(`${elsewhere} Nothing was sent.`);
            return undefined;
        }
        let { to, call: data, allowance } = step.dataset;
        if (allowance) {
            const asked = step.dataset.neededCall && { to: step.dataset.neededTo, data: step.dataset.neededCall };
            const needed = BigInt(asked ? await ask("eth_call", [asked, "latest"]) : step.dataset.needed);
            const allowed = BigInt(await ask("eth_call", [{ to, data: allowance }, "latest"]));
            if (allowed >= needed) {
                tell(`Not needed: ${amount(needed)} may be taken already.`);
                return 0n;
            }
            // The amount is the call's last word.
            data = data.slice(0, -64) + word(needed);
            step.querySelector(".bytes").textContent = data;
            tell(`Exactly ${amount(needed)}. Waiting for your wallet …`);
        } else {
            tell("Waiting for your wallet …");
        }
        const transaction = { from, to, data };
        await ask("eth_call", [transaction, "latest"]);
        const hash = await ask("eth_sendTransaction", [{ ...transaction, chainId: chain }]);
        tell(`Sent as ${hash}; waiting for a block …`);
        const receipt = await mined(hash);
        if (!receipt) {
            tell(`Sent as ${hash}, and in no block yet. Look in your wallet before you go on.`);
            return undefined;
        }
        const block = BigInt(receipt.blockNumber);
        if (BigInt(receipt.status) !== 1n) {
            // What it would say at the block that it was refused in.
            const why = await ask("eth_call", [transaction, receipt.blockNumber]).then(() => undefined, reason);
            tell(`It was mined in block ${block} and refused. ${why ?? ""}`);
            return undefined;
        }
        tell(`Done, in block ${block}.`);
        return block;
    } catch (error) {
        tell(await reason(error));
        return undefined;
    }
}

async function mined(hash) {
    for (let tries = 0; tries < POLLS; tries += 1) {
        const receipt = await ask("eth_getTransactionReceipt", [hash]).catch(() => undefined);
        if (receipt) return receipt;
        await wait(POLL);
    }
    return undefined;
}

// Waits until the market has what was done, and leads there.
async function arrive(block) {
    say("Done. Waiting for the market to see it …");
    buttons.replaceChildren();
    for (let tries = 0; tries < POLLS; tries += 1) {
        const answer = await fetch("/page/head").catch(() => undefined);
        if (answer?.ok && BigInt(await answer.text()) >= block) break;
        await wait(POLL);
    }
    const there = link("See what came of it", plan.dataset.then);
    buttons.replaceChildren(there);
    say("Done.");
    there.focus();
}
