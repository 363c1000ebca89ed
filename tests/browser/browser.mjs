// A headless Chromium for the tests of pages: opens them, looks for what axe finds wrong, takes pictures, and notes
// whatever a page complains about.
//
//   await inBrowser(async browser => {
//       const page = await browser.open(url);
//       await browser.check(page, "overview");
//   });

import { mkdtemp, mkdir, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

// Without these Chromium looks for its maker's hosts, and for a GPU.
const FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
];

const WIDTHS = { desk: { width: 1280, height: 900 }, phone: { width: 360, height: 740 } };

/// Where pictures go, if anywhere: BROWSER_PICTURES names a folder.
const pictures = process.env.BROWSER_PICTURES;

export function ensure(holds, words) {
    if (!holds) throw new Error(words);
}

/// Runs `tell` with a browser of its own, and fails if a page complained about something.
export async function inBrowser(tell, { program = process.env.CHROMIUM ?? "/usr/bin/chromium", ...options } = {}) {
    const profile = await mkdtemp(join(tmpdir(), "roadstead-browser-"));
    const context = await chromium.launchPersistentContext(profile, {
        executablePath: program, args: FLAGS, viewport: WIDTHS.desk, timeout: 60_000, ...options,
    });
    try {
        const browser = new Browser(context);
        await tell(browser);
        ensure(browser.complaints.length === 0, `the pages complained:\n${browser.complaints.join("\n")}`);
    } finally {
        await context.close();
        await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    }
}

class Browser {
    constructor(context) {
        this.context = context;
        this.complaints = [];
    }

    /// A new page at `url`. With `answers`, it may answer with another status than 200.
    async open(url, { answers = 200 } = {}) {
        const page = await this.context.newPage();
        page.on("pageerror", error => this.complaints.push(`${page.url()}: ${error.message}`));
        page.on("console", message => {
            // What a page itself answers is looked at where it is asked for.
            const own = message.text().startsWith("Failed to load resource") && message.location().url === page.url();
            if (message.type() === "error" && !own) {
                this.complaints.push(`${page.url()}: ${message.text()}`);
            }
        });
        const response = await page.goto(url);
        ensure(response.status() === answers, `${url} answers ${response.status()} instead of ${answers}`);
        return page;
    }

    /// Makes sure that a page is readable by everybody: by day and by night, on a desk and on a phone, nothing that axe
    /// finds wrong and nothing that sticks out at the side. Takes a picture of each.
    async check(page, name) {
        for (const [device, size] of Object.entries(WIDTHS)) {
            await page.setViewportSize(size);
            for (const colorScheme of ["light", "dark"]) {
                await page.emulateMedia({ colorScheme });
                const at = `${name}, ${device}, ${colorScheme}`;
                if (pictures) {
                    await mkdir(pictures, { recursive: true });
                    await page.screenshot({ path: join(pictures, `${name}-${device}-${colorScheme}.png`), fullPage: true });
                }
                const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
                ensure(wide <= 0, `${at}: the page is ${wide} pixels too wide`);
                const found = await axe(page);
                ensure(found.length === 0, `${at}: axe finds\n${found.join("\n")}`);
            }
        }
        await page.setViewportSize(WIDTHS.desk);
        await page.emulateMedia({ colorScheme: "light" });
    }
}

// The page's policy lets no script in, and none of it is the page's: it runs beside the page.
async function axe(page) {
    const source = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    const session = await page.context().newCDPSession(page);
    const run = async expression => {
        const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
        ensure(!exceptionDetails, JSON.stringify(exceptionDetails));
        return result.value;
    };
    await run(`{${source}}; 0`);
    const violations = await run("axe.run(document).then(({ violations }) => violations)");
    await session.detach();
    return violations.flatMap(one => one.nodes.map(node => `  ${one.id} (${one.impact}): ${one.help}\n    ${node.html}\n    ${node.failureSummary}`));
}
