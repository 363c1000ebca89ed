//! Who went dark, who only seemed to, and what else only the other side of a lease can do: keepers, leaving, watchers.

use std::collections::BTreeSet;

use alloy::{
    primitives::U256, providers::Provider as _, rpc::types::Filter, sol_types::SolEvent as _,
};
use anyhow::{Context as _, ensure};
use chain::abi::{
    ISla::Challenge,
    Sla::{Answered, Claimed},
};
use protocol::{
    amount::{Amount, Rate, SCALE},
    lease::{CloseReason, State},
    sla,
};
use serde_json::Value;
use tests::{Publisher, Said, Setup, Stack, story, until};

/// What the guestbook asks for.
const COVERAGE: u128 = 5_000_000;

/// What a challenge is bonded with.
const BOND: u128 = 1_000_000;

/// Runs a command with the provider's wallet.
async fn as_provider(stack: &Stack, args: &[&str]) -> anyhow::Result<Said> {
    let data = stack.provider.data();
    let home = data.parent().context("the provider lies nowhere")?.join("home");
    let home = home.to_str().context("the provider's home has no name")?;
    stack.publisher.run(&[&["--home", home], args].concat()).await
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

fn amount(value: &Value) -> anyhow::Result<u128> {
    Ok(value.as_str().with_context(|| format!("{value} is no amount"))?.parse()?)
}

/// What of a slash is burned, as docs/protocol.md says.
fn burned(slash: u128) -> u128 {
    slash.div_ceil(10)
}

async fn held(stack: &Stack, who: &Publisher) -> anyhow::Result<u128> {
    Ok(u128::try_from(stack.held(who.address()).await?)?)
}

/// The names of what happened to a lease.
async fn events(stack: &Stack, lease: u64) -> anyhow::Result<Vec<String>> {
    let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
    let event = |line: &str| anyhow::Ok(serde_json::from_str::<Value>(line)?["event"].to_string());
    said.out.lines().map(event).collect()
}

/// Makes sure that of what the publisher deposited for a dark lease, the provider is owed what was funded before the
/// challenge, and all else came back.
async fn unpaid_since_the_challenge(stack: &Stack, lease: u64, rate: u128) -> anyhow::Result<()> {
    let view = stack.lease(lease).await?;
    let challenge: Challenge = stack.chain.sla().challengeOf(lease).call().await?;
    // Nothing else runs on the account, so its clock began with the lease.
    let ran = challenge.since.to::<u64>() - view.lease.activatedAt.to::<u64>();
    ensure!(challenge.clock.to::<u64>() == ran, "{challenge:?} after {ran} s");
    let earned = Rate(rate).times(ran).context("that much cannot be earned")?.0;
    let free = stack.account(stack.publisher.account()).await?.free;
    let deposit = 5_000_000 * SCALE;
    ensure!(free == deposit - earned, "{free} are left of {deposit}, and {earned} were earned");
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_there_answers_by_itself_also_after_a_crash() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let id = lease.to_string();
        let wait = ["challenge", id.as_str(), "--wait", "--yes"];
        let ended = stack.publisher.json(&wait).await?;
        ensure!(ended["answered"] == true && ended["claimed"] == serde_json::json!([]), "{ended}");
        until("the answer is told", async || {
            let told = events(stack, lease).await?;
            Ok(told.ends_with(&["\"challenged\"".into(), "\"answered\"".into()]).then_some(()))
        })
        .await?;

        // It is killed, challenged while it is away, and takes it up when it is back.
        stack.pass(3_600).await?;
        stack.provider.kill().await?;
        stack.publisher.json(&["challenge", &id, "--yes"]).await?;
        stack.provider.start().await?;
        until("the challenge is answered", async || {
            let open: Challenge = stack.chain.sla().challengeOf(lease).call().await?;
            Ok(open.challenger.is_zero().then_some(()))
        })
        .await?;
        ensure!(stack.state(lease).await? == State::Active);
        stack.provider.site(&pod.host)?.sign("Ada", "still here").await?;
        until("both are told, once each", async || {
            let told = events(stack, lease).await?;
            let count = |name: &str| told.iter().filter(|told| *told == name).count();
            Ok(((count("\"challenged\""), count("\"answered\"")) == (2, 2)).then_some(()))
        })
        .await?;
        // The provider takes the bonds into its wallet when it looks what there is to collect, as it does at its start.
        stack.provider.stop().await?;
        stack.provider.start().await?;
        until("both bonds are in the wallet", async || {
            let waits = stack.chain.sla().claimable(stack.provider.address()).call().await?;
            Ok(waits.is_zero().then_some(()))
        })
        .await?;
        let filter = Filter::new()
            .address(stack.chain.deployment().sla)
            .event_signature(Claimed::SIGNATURE_HASH)
            .from_block(0);
        let mut won = U256::ZERO;
        for log in stack.chain.provider().get_logs(&filter).await? {
            won += log.log_decode::<Claimed>()?.inner.data.amount;
        }
        ensure!(won == U256::from(2 * BOND), "{won} came into the provider's wallet");
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn many_challenges_are_answered_together() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("many").await?;
        let mut leases = Vec::new();
        for number in 0..3 {
            let pod = stack.probe(&format!("many-{number}"), &image.name, "")?;
            leases.push(stack.publisher.deploy(&pod).await?.lease);
        }
        stack.provider.kill().await?;
        for lease in &leases {
            stack.publisher.json(&["challenge", &lease.to_string(), "--yes"]).await?;
        }
        stack.provider.start().await?;
        let filter = Filter::new()
            .address(stack.chain.deployment().sla)
            .event_signature(Answered::SIGNATURE_HASH)
            .from_block(0);
        let logs = until("all are answered", async || {
            let logs = stack.chain.provider().get_logs(&filter).await?;
            Ok((logs.len() == leases.len()).then_some(logs))
        })
        .await?;
        let hashes: BTreeSet<_> = logs.iter().filter_map(|log| log.transaction_hash).collect();
        ensure!(hashes.len() == 1, "it took {} transactions", hashes.len());
        for lease in leases {
            stack.publisher.down(lease).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_killed_provider_loses_the_coverage_to_who_waits() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let deployed = stack.publisher.deploy(&pod).await?;
        let (lease, id) = (deployed.lease, deployed.lease.to_string());
        stack.provider.kill().await?;
        let before = held(stack, &stack.publisher).await?;
        let waiting = stack.publisher.start(&["challenge", &id, "--wait", "--yes"])?;
        until("the lease is challenged", async || {
            let open: Challenge = stack.chain.sla().challengeOf(lease).call().await?;
            Ok((!open.challenger.is_zero()).then_some(()))
        })
        .await?;
        ensure!(held(stack, &stack.publisher).await? == before - BOND);
        stack.pass(301).await?;
        let ended = waiting.json().await?;
        ensure!(ended["dark"] == true, "{ended}");
        stack.closed(lease, CloseReason::WentDark).await?;
        let gained = held(stack, &stack.publisher).await? - before;
        ensure!(gained == COVERAGE - burned(COVERAGE), "{gained} came: {ended}");
        unpaid_since_the_challenge(stack, lease, deployed.rate).await?;
        stack.provider.start().await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_killed_provider_is_challenged_by_whoever_watches() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let deployed = stack.publisher.deploy(&pod).await?;
        let lease = deployed.lease;
        let bad = ["ps", "--challenge", "--yes"];
        stack.publisher.run(&bad).await?.refused(2, &["--watch"])?;
        let before = held(stack, &stack.publisher).await?;
        let watch = ["ps", "--watch", "--challenge", "--checks", "2", "--yes"];
        let mut watching = stack.publisher.start(&watch)?;
        let mut next = async || -> anyhow::Result<Value> {
            let line = watching.line().await?.context("it stopped watching")?;
            Ok(serde_json::from_str(&line)?)
        };
        let first = next().await?;
        ensure!(first["leases"][0]["phase"] == "running", "{first}");
        stack.provider.kill().await?;
        let mut notes = Vec::new();
        while notes.last().is_none_or(|note: &Value| note["event"] != "challenged") {
            notes.push(next().await?);
        }
        stack.pass(301).await?;
        while notes.iter().filter(|note| note["event"] == "claimed").count() < 2 {
            notes.push(next().await?);
        }
        let told: Vec<_> = notes.iter().filter_map(|note| note["event"].as_str()).collect();
        let wanted = ["silent", "silent", "challenged", "dark", "claimed", "claimed"];
        ensure!(told == wanted, "{notes:?}");
        stack.closed(lease, CloseReason::WentDark).await?;
        let gained = held(stack, &stack.publisher).await? - before;
        ensure!(gained == COVERAGE - burned(COVERAGE), "{gained} came: {notes:?}");
        unpaid_since_the_challenge(stack, lease, deployed.rate).await?;
        watching.kill().await?;

        // It is known for what it was.
        let row = stack.publisher.row(lease).await?;
        ensure!(row["state"] == "closed" && row["closeReason"] == "went-dark", "{row}");
        stack.provider.start().await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_keeper_deploys_what_it_keeps_and_nothing_else() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let mut pod = stack.guestbook()?;
        let (owner, file) = (&stack.publisher, pod.path().to_owned());
        let (keeper, stranger) = (stack.stranger().await?, stack.stranger().await?);
        let who = keeper.address().to_string();
        let register =
            ["app", "register", "shop", &file, "--max-price", "0.02/h", "--replicas", "2"];
        let rest = ["--keeper", &who, "--fund", "5", "--yes"];
        owner.json(&[&register[..], &rest].concat()).await?;

        let deploy = ["app", "deploy", "shop", "0", &file, "--yes"];
        stranger.run(&deploy).await?.refused(1, &["does not keep app 1"])?;
        let deployed = keeper.json(&deploy).await?;
        let lease = number(&deployed["lease"])?;
        ensure!(stack.lease(lease).await?.payer == owner.address(), "the owner does not pay");
        let site = stack.provider.site(&pod.host)?;
        // The keeper sealed the secret, too.
        site.sign("Ada", "kept").await?;
        // It sees that the pod runs, and nothing of what is in it.
        let id = lease.to_string();
        keeper.run(&["logs", &id]).await?.refused(1, &["is paid by"])?;
        ensure!(owner.row(lease).await?["phase"] == "running");

        // Another pod is not its to run before the owner allows it.
        pod.change("guestbook.localhost", "other.localhost")?;
        let second = ["app", "deploy", "shop", "1", &file, "--yes"];
        keeper.run(&second).await?.refused(1, &["may run pod"])?;

        // Its owner allows either, and the keeper shows that the pod is one of them.
        let hash = async || {
            let checked = owner.json(&["check", &file]).await?;
            anyhow::Ok(checked["hash"].as_str().context("there is no hash")?.to_owned())
        };
        let other = hash().await?;
        pod.change("other.localhost", "guestbook.localhost")?;
        let first = hash().await?;
        owner.json(&["app", "set-limits", "shop", &file, "--also", &other]).await?;
        pod.change("guestbook.localhost", "other.localhost")?;
        keeper.run(&second).await?.refused(1, &["may run several pods"])?;
        let deployed = keeper.json(&[&second[..], &["--also", &first]].concat()).await?;
        stack.provider.site("other.localhost")?.get("/").await?;
        keeper.json(&["app", "close", "shop", "1"]).await?;
        stack.closed(number(&deployed["lease"])?, CloseReason::PayerDone).await?;
        keeper.json(&["app", "close", "shop", "0"]).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        owner.json(&["app", "set-keeper", "shop", &stranger.address().to_string()]).await?;
        pod.change("other.localhost", "guestbook.localhost")?;
        let again = [&deploy[..], &["--also", &other]].concat();
        keeper.run(&again).await?.refused(1, &["does not keep app 1"])?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_lease_that_cannot_be_paid_for_is_closed_as_that() -> anyhow::Result<()> {
    // So dear that time empties the account before the second one is ready.
    let setup = Setup { price: "16/h", start_within: 14_000, ..Setup::default() };
    story(setup, async |stack| {
        let image = stack.image("unpaid").await?;
        let pod = stack.probe("unpaid", &image.name, "")?;
        let first = stack.publisher.deploy(&pod).await?;
        let other = stack.probe("unpaid-2", &image.name, "")?;
        let quote = stack.publisher.quote(&other).await?;
        stack.provider.kill().await?;
        let leases = stack.chain.deployment().leases;
        let sender = stack.ready_account().await?;
        sender.send(leases, &stack.open(&quote, 1)).await?;
        let lease = stack.openings().await?.last().context("nothing was opened")?.lease;

        // What both have locked is not there any more, and the first one can still be paid.
        let account = stack.account(stack.publisher.account()).await?;
        let left = account.fundedUntil.to::<u64>() - stack.chain.head().await?.timestamp;
        stack.pass(left - 80).await?;
        let bond = stack.chain.staking().bondOf(stack.provider.address()).call().await?.bonded;
        stack.provider.start().await?;
        stack.closed(lease, CloseReason::AccountDry).await?;
        let after = stack.chain.staking().bondOf(stack.provider.address()).call().await?.bonded;
        ensure!(after == bond, "the provider paid {} for it", bond - after);
        let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
        ensure!(said.out.contains("its account cannot pay"), "{}", said.out);
        stack.publisher.down(first.lease).await?;
        stack.closed(first.lease, CloseReason::PayerDone).await
    })
    .await
}

#[tokio::test]
async fn a_stream_that_its_owner_ends_ends_the_lease() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let sender = stack.sender(&stack.publisher.signer);
        let call = chain::abi::Payments::closeStreamCall { id: stack.chain.stream_of(lease) };
        sender.send(stack.chain.deployment().payments, &call).await?;
        // The provider does not run on for nothing.
        stack.closed(lease, CloseReason::StreamEnded).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_provider_leaves_in_order() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let id = lease.to_string();
        let stranger = stack.stranger().await?;
        stranger
            .run(&["provider", "notice", &id, "--yes"])
            .await?
            .refused(1, &["is provided by"])?;

        // A quote that was cancelled opens nothing, nor do those of a listing that was replaced.
        let quote = stack.publisher.quote(&pod).await;
        ensure!(quote.is_err(), "the host is taken, and there is a quote for it");
        let mut other = stack.guestbook()?;
        other.change("guestbook.localhost", "other.localhost")?;
        let quote = stack.publisher.quote(&other).await?;
        let sender = stack.ready_account().await?;
        let leases = stack.chain.deployment().leases;
        let nonce = quote.quote.nonce.to_string();
        as_provider(stack, &["provider", "cancel-quotes", &nonce]).await?.json()?;
        let refused = sender.send(leases, &stack.open(&quote, 1)).await;
        ensure!(refused.is_err_and(|err| err.to_string().contains("used")), "it was opened");
        let quote = stack.publisher.quote(&other).await?;
        as_provider(stack, &["provider", "cancel-quotes", "--all"]).await?.json()?;
        let refused = sender.send(leases, &stack.open(&quote, 1)).await;
        ensure!(refused.is_err_and(|err| err.to_string().contains("listing")), "it was opened");

        // Without its listing it has no new leases, and is still found for the one that it has.
        as_provider(stack, &["provider", "delist", "--yes"]).await?.json()?;
        as_provider(stack, &["provider", "delist", "--yes"])
            .await?
            .refused(1, &["is not listed"])?;
        ensure!(stack.publisher.row(lease).await?["phase"] == "running");
        stack.publisher.run(&["logs", &id]).await?.code.eq(&0).then_some(()).context("no logs")?;
        let update = ["update", &id, other.path(), "--yes"];
        stack.publisher.run(&update).await?.refused(1, &["not listed"])?;
        stack.publisher.run(&["quote", other.path()]).await?.refused(1, &["listed"])?;

        // To leave at once has its price, and to give notice first has none.
        let notice = as_provider(stack, &["provider", "notice", &id, "--yes"]).await?.json()?;
        as_provider(stack, &["provider", "notice", &id, "--yes"])
            .await?
            .refused(1, &["was given already"])?;
        as_provider(stack, &["provider", "close", &id])
            .await?
            .refused(1, &["no terminal to ask for consent at"])?;
        let ends_at = number(&notice["endsAt"])?;
        stack.pass(ends_at - stack.chain.head().await?.timestamp).await?;
        let closed = as_provider(stack, &["provider", "close", &id, "--yes"]).await?.json()?;
        ensure!(closed["penalty"] == "0", "{closed}");
        stack.closed(lease, CloseReason::ProviderDraining).await?;

        // What backed it is free after the claim window, and out after the delay.
        let unlock = as_provider(stack, &["stake", "unlock"]).await?.json()?;
        ensure!(unlock["freed"] == "0" && unlock["next"].is_u64(), "{unlock}");
        stack.pass(3 * 86_400).await?;
        let unlock = as_provider(stack, &["stake", "unlock"]).await?.json()?;
        ensure!(amount(&unlock["freed"])? == COVERAGE, "{unlock}");
        as_provider(stack, &["stake", "unbond", "all"]).await?.json()?;
        stack.pass(7 * 86_400 + 1).await?;
        let taken = as_provider(stack, &["stake", "withdraw"]).await?.json()?;
        ensure!(taken["withdrawn"] == "500000000", "{taken}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn leaving_at_once_costs_a_part_of_the_coverage() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let id = lease.to_string();
        let close = ["provider", "close", &id, "--reason", "fault", "--yes"];
        let closed = as_provider(stack, &close).await?.json()?;
        ensure!(amount(&closed["penalty"])? == COVERAGE / 5, "{closed}");
        stack.closed(lease, CloseReason::ProviderFault).await?;
        let before = held(stack, &stack.publisher).await?;
        stack.publisher.json(&["claim"]).await?;
        let gained = held(stack, &stack.publisher).await? - before;
        ensure!(gained == COVERAGE / 5 - burned(COVERAGE / 5), "{gained} came");
        stack.nothing_is_left().await
    })
    .await
}

/// Writes what `watcher sign` prints into a file, and names it.
async fn signed(
    stack: &Stack,
    watcher: &Publisher,
    name: &str,
    args: &[&str],
) -> anyhow::Result<String> {
    let said = watcher.run(&[&["watcher", "sign"], args].concat()).await?;
    ensure!(said.code == 0, "{}", said.err);
    let path = stack.folder().join(format!("{name}.json"));
    std::fs::write(&path, said.out)?;
    Ok(path.display().to_string())
}

async fn report(stack: &Stack, files: &[String]) -> anyhow::Result<Said> {
    let files = files.iter().map(String::as_str);
    stack.publisher.run(&["watcher", "report"].into_iter().chain(files).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_committee_reports_an_outage_and_everybody_gets_their_share() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let id = lease.to_string();
        let mut watchers = Vec::new();
        for _ in 0..7 {
            let watcher = stack.stranger().await?;
            watcher.json(&["stake", "bond", "100"]).await?;
            watcher.json(&["watcher", "join", "--yes"]).await?;
            watchers.push(watcher);
        }
        // All of them sit from the next epoch on, in which half an hour is missing.
        let shown = watchers[0].json(&["watcher", "show"]).await?;
        let begins = number(&shown["epochEnds"])?;
        stack.pass(begins - stack.chain.head().await?.timestamp + 1).await?;
        stack.publisher.json(&["watcher", "open-epoch"]).await?;
        stack.pass(2_400).await?;
        let (from, to) = ((begins + 100).to_string(), (begins + 1_900).to_string());
        let times = [id.as_str(), "--from", &from, "--to", &to];
        let mut files = Vec::new();
        for (number, watcher) in watchers.iter().enumerate() {
            files.push(signed(stack, watcher, &format!("down-{number}"), &times).await?);
        }
        report(stack, &files[..4]).await?.refused(1, &["4 members", "5 have to"])?;
        let up = [&times[..], &["--up"]].concat();
        let contrary = signed(stack, &watchers[0], "up-0", &up).await?;
        let mixed = [files.clone(), vec![contrary.clone()]].concat();
        report(stack, &mixed).await?.refused(1, &["say the same"])?;
        let outsider = signed(stack, &stack.publisher, "outsider", &times).await?;
        let odd = [files.clone(), vec![outsider.clone()]].concat();
        report(stack, &odd).await?.refused(1, &["does not sit in the committee"])?;

        // As docs/protocol.md reckons: quadratic between grace and full, a tenth burned, a twentieth for six witnesses.
        let reported = report(stack, &files[..6]).await?.json()?;
        let due = sla::due(Amount(COVERAGE), 1_800, 60, 3_600).0;
        let share = due * 500 / 10_000 / 6;
        let payer = due - burned(due) - 6 * share;
        ensure!(amount(&reported["taken"])? == due, "{reported}, and {due} are due");
        ensure!(amount(&reported["reward"])? == 6 * share, "{reported}");
        let before = held(stack, &stack.publisher).await?;
        stack.publisher.json(&["claim"]).await?;
        ensure!(held(stack, &stack.publisher).await? - before == payer, "{reported}");
        report(stack, &files[..6]).await?.refused(1, &["is not one outage"])?;
        for (number, watcher) in watchers.iter().enumerate() {
            let before = held(stack, watcher).await?;
            watcher.json(&["watcher", "reward"]).await?;
            let gained = held(stack, watcher).await? - before;
            ensure!(gained == if number < 6 { share } else { 0 }, "watcher {number} got {gained}");
        }
        let again = watchers[0].json(&["watcher", "reward", "--lease", &id]).await?;
        ensure!(again == serde_json::json!([]), "it is there twice: {again}");
        ensure!(stack.state(lease).await? == State::Active, "it was not away for long enough");

        // Who said both things pays for that.
        let accuse = ["watcher", "accuse", files[0].as_str(), &contrary];
        stack
            .publisher
            .run(&["watcher", "accuse", &files[0], &files[1]])
            .await?
            .refused(1, &["do not contradict"])?;
        let before = held(stack, &stack.publisher).await?;
        let accused = stack.publisher.json(&accuse).await?;
        ensure!(accused["bond"] == "100000000", "{accused}");
        stack.publisher.json(&["claim"]).await?;
        let gained = held(stack, &stack.publisher).await? - before;
        ensure!(gained == 50_000_000 - burned(50_000_000), "{gained} came");
        stack.publisher.run(&accuse).await?.refused(1, &["no seat"])?;
        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await
    })
    .await
}
