//! What is on the chain beside leases: orders and bids, apps, challenges, what is at stake.

use anyhow::{Context as _, ensure};
use protocol::lease::{CloseReason, State};
use serde_json::Value;
use tests::{Said, Setup, Stack, story, until};

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

/// What `claim` brought, by where it came from.
fn claimed(rows: &Value, source: &str) -> anyhow::Result<u128> {
    let rows = rows.as_array().context("claim printed no list")?;
    let row = rows.iter().find(|row| row["source"] == source);
    let row = row.with_context(|| format!("nothing came from {source}: {rows:?}"))?;
    Ok(row["amount"].as_str().context("there is no amount")?.parse()?)
}

#[tokio::test]
async fn an_order_goes_to_the_best_bid_that_is_fit() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let (publisher, provider) = (&stack.publisher, stack.provider.address().to_string());
        let auditor = publisher.address();
        let required = format!("gdpr@{auditor}");
        let place = ["order", "place", pod.path(), "--max-price", "0.02/h", "--require", &required];
        publisher.run(&[&place[..], &["--yes"]].concat()).await?.refused(1, &["roadstead fund"])?;
        let short = [&place[..], &["--start-within", "5s", "--yes"]].concat();
        publisher.run(&short).await?.refused(1, &["--start-within: 5s"])?;
        let placed = publisher.json(&[&place[..], &["--fund", "5", "--yes"]].concat()).await?;
        let order = number(&placed["order"])?.to_string();
        publisher.run(&["order", "award", &order]).await?.refused(1, &["nobody has bid"])?;

        // Who is not listed, not vouched for or asks too much does not come to bid.
        let bid = ["bid", order.as_str(), "0.01/h", "--yes"];
        let stranger = stack.stranger().await?;
        stranger.run(&bid).await?.refused(1, &["not listed"])?;
        as_provider(stack, &bid).await?.refused(1, &["requires attribute", "does not vouch"])?;
        publisher.json(&["vouch", &provider, "gdpr", "--until", "30d"]).await?;
        let dear = ["bid", order.as_str(), "0.03/h", "--yes"];
        as_provider(stack, &dear).await?.refused(1, &["too much", "0.02/h"])?;
        let made = as_provider(stack, &bid).await?.json()?;
        ensure!(made["bound"] == "5500000", "the coverage and a tenth of it are bound: {made}");
        as_provider(stack, &bid).await?.refused(1, &["at most 0.0099/h"])?;
        let shown = publisher.json(&["order", "show", &order]).await?;
        ensure!(shown["leader"] == provider.to_lowercase() && shown["bids"] == 1, "{shown}");

        // The winner gets the pod, its image and its secret along with the award, and runs it at the price that it bid.
        let awarded =
            publisher.json(&["order", "award", &order, pod.path(), "--app", "won"]).await?;
        let lease = number(&awarded["lease"])?;
        ensure!(stack.state(lease).await? == State::Active, "lease {lease} does not run");
        ensure!(Some(stack.lease(lease).await?.rate.to_string().as_str()) == made["rate"].as_str());
        let site = stack.provider.site(&pod.host)?;
        site.sign("Ada", "auctioned").await?;
        publisher.run(&["order", "cancel", &order]).await?.refused(1, &["is awarded"])?;

        // The order is over, and gives the deposit back; the bond backs the lease alone.
        let settled = publisher.json(&["order", "settle", &order]).await?;
        ensure!(settled["outcome"] == "started" && settled["penalty"] == "0", "{settled}");
        ensure!(claimed(&publisher.json(&["claim"]).await?, "auction")? == 1_000_000);
        ensure!(publisher.json(&["claim"]).await? == serde_json::json!([]), "it is there twice");
        let bond = as_provider(stack, &["stake", "show"]).await?.json()?;
        ensure!(bond["locked"] == "5000000" && bond["lockers"].to_string().contains("auction"));
        publisher.json(&["down", "won"]).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_winner_that_does_not_start_pays_and_the_order_is_open_anew() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let publisher = &stack.publisher;
        let place = ["order", "place", pod.path(), "--fund", "5", "--self-award", "--yes"];
        let placed = publisher.json(&place).await?;
        let order = number(&placed["order"])?.to_string();
        as_provider(stack, &["bid", &order, "--yes"]).await?.json()?;
        as_provider(stack, &["order", "award", &order]).await?.refused(1, &["only who pays"])?;
        as_provider(stack, &["bid", "disqualify", &order])
            .await?
            .refused(1, &["can be awarded"])?;

        // Its time is over, so anybody awards it; nobody gives the winner the pod, and it cannot start.
        stack.pass(601).await?;
        as_provider(stack, &["bid", &order, "--yes"]).await?.refused(1, &["ended"])?;
        let stranger = stack.stranger().await?;
        let awarded = stranger.json(&["order", "award", &order]).await?;
        let lease = number(&awarded["lease"])?;
        until("the provider gives it up", async || {
            Ok((stack.state(lease).await? == State::Closed).then_some(()))
        })
        .await?;
        let again = stranger.json(&["order", "settle", &order]).await?;
        ensure!(again["state"] == "open" && again["penalty"] == "500000", "{again}");
        // A part of each slash is burned.
        let paid = claimed(&publisher.json(&["claim"]).await?, "staking")?;
        ensure!((1..500_000).contains(&paid), "{paid} of the penalty came");

        let cancelled = publisher.json(&["order", "cancel", &order]).await?;
        ensure!(cancelled["outcome"] == "cancelled", "{cancelled}");
        ensure!(claimed(&publisher.json(&["claim"]).await?, "auction")? == 1_000_000);
        let open = publisher.json(&["order", "ls"]).await?;
        ensure!(open == serde_json::json!([]), "still open: {open}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_provider_answers_a_challenge_or_pays_its_coverage() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let id = lease.to_string();
        let challenge = ["challenge", id.as_str(), "--yes"];
        let stranger = stack.stranger().await?;
        stranger.run(&challenge).await?.refused(1, &["only who pays"])?;
        as_provider(stack, &["challenge", "answer", &id])
            .await?
            .refused(1, &["nobody challenges"])?;

        // By hand, as the provider's program is away: it would answer by itself.
        stack.provider.kill().await?;
        let made = stack.publisher.json(&challenge).await?;
        ensure!(made["bond"] == "1000000", "{made}");
        stack.publisher.run(&challenge).await?.refused(1, &["challenged already"])?;
        let resolve = ["challenge", "resolve", id.as_str()];
        stack.publisher.run(&resolve).await?.refused(1, &["to answer: try again after"])?;
        as_provider(stack, &["challenge", "answer", &id]).await?.json()?;
        ensure!(claimed(&as_provider(stack, &["claim"]).await?.json()?, "sla")? == 1_000_000);
        stack
            .publisher
            .run(&challenge)
            .await?
            .refused(1, &["cannot be challenged again before"])?;

        // The pause is over, and nobody answers: it pays with the whole coverage.
        stack.pass(3_600).await?;
        stack.publisher.json(&challenge).await?;
        stack.pass(301).await?;
        as_provider(stack, &["challenge", "answer", &id])
            .await?
            .refused(1, &["had to be answered"])?;
        let resolved = stack.publisher.json(&resolve).await?;
        ensure!(resolved["dark"] == true && resolved["compensation"] == "5000000", "{resolved}");
        stack.closed(lease, CloseReason::WentDark).await?;
        let rows = stack.publisher.json(&["claim"]).await?;
        ensure!(claimed(&rows, "sla")? == 1_000_000, "the bond did not come back: {rows}");
        let paid = claimed(&rows, "staking")?;
        ensure!((2_500_000..5_000_000).contains(&paid), "{paid} of the coverage came");
        stack.provider.start().await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn an_app_has_its_name_and_its_limits() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let mut pod = stack.guestbook()?;
        let (publisher, file) = (&stack.publisher, pod.path().to_owned());
        let register = ["app", "register", "shop", &file, "--max-price", "0.02/h", "--yes"];
        publisher.run(&register).await?.refused(1, &["roadstead fund"])?;
        let bad = ["app", "register", "Shop", pod.path(), "--yes"];
        publisher.run(&bad).await?.refused(1, &["no name for an app"])?;
        let made = publisher.json(&[&register[..], &["--fund", "5"]].concat()).await?;
        ensure!(made["name"] == "shop", "{made}");
        publisher.run(&register).await?.refused(1, &["taken by app 1"])?;

        let deploy = ["app", "deploy", "shop", "0", &file, "--yes"];
        let deployed = publisher.json(&deploy).await?;
        let lease = number(&deployed["lease"])?;
        stack.provider.site(&pod.host)?.sign("Ada", "kept").await?;
        publisher.run(&deploy).await?.refused(1, &["runs already"])?;
        let second = ["app", "deploy", "shop", "1", &file, "--yes"];
        publisher.run(&second).await?.refused(1, &["may have 1 replicas"])?;
        let shown = publisher.json(&["app", "show", "shop"]).await?;
        ensure!(shown["leases"][0]["lease"] == lease, "{shown}");

        // Nobody else has a say; and no other pod runs before the owner allows it.
        let stranger = stack.stranger().await?;
        stranger
            .run(&["app", "close", "shop", "0"])
            .await?
            .refused(1, &["neither keeps nor owns"])?;
        stranger.run(&["app", "retire", "shop"]).await?.refused(1, &["is owned by"])?;
        publisher.json(&["app", "close", "shop", "0"]).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await?;
        pod.change("guestbook.localhost", "other.localhost")?;
        publisher.run(&deploy).await?.refused(1, &["may run pod"])?;
        let limits = ["app", "set-limits", "shop", &file, "--replicas", "2"];
        publisher.json(&limits).await?;
        publisher.run(&limits).await?.refused(1, &["already"])?;
        let deployed = publisher.json(&second).await?;
        let lease = number(&deployed["lease"])?;
        publisher.json(&["app", "set-keeper", "shop", &stranger.address().to_string()]).await?;
        // The keeper may end what its owner deployed.
        stranger.json(&["app", "close", "shop", "1"]).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;

        publisher.json(&["app", "retire", "shop"]).await?;
        publisher.run(&["app", "show", "shop"]).await?.refused(1, &["no app has the name"])?;
        let account = stack.account(publisher.account()).await?;
        ensure!(account.rate == 0, "something is paid for a retired app: {account:?}");
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn what_is_at_stake_is_locked_by_a_seat_and_comes_back_in_time() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let watcher = stack.stranger().await?;
        let join = ["watcher", "join", "--yes"];
        watcher.run(&join).await?.refused(1, &["roadstead stake bond 100.00"])?;
        let bond = watcher.json(&["stake", "bond", "150"]).await?;
        ensure!(bond["free"] == "150000000", "{bond}");
        let seat = watcher.json(&join).await?;
        ensure!(seat["seat"] == 1, "{seat}");
        watcher.run(&join).await?.refused(1, &["has a seat already"])?;
        watcher.run(&["watcher", "open-epoch"]).await?.refused(1, &["too few watchers"])?;
        let shown = watcher.json(&["watcher", "show"]).await?;
        ensure!(shown["seat"] == 1 && shown["bond"] == "100000000", "{shown}");

        watcher.run(&["stake", "unbond", "60"]).await?.refused(1, &["50.00", "are free"])?;
        watcher.json(&["stake", "unbond", "20"]).await?;
        watcher.json(&["stake", "cancel"]).await?;
        watcher.json(&["stake", "unbond", "all"]).await?;
        watcher.run(&["stake", "withdraw"]).await?.refused(1, &["can be withdrawn in"])?;
        watcher.json(&["watcher", "leave"]).await?;
        watcher.run(&["watcher", "leave"]).await?.refused(1, &["has no seat"])?;
        stack.pass(7 * 86_400 + 1).await?;
        let before = stack.held(watcher.address()).await?;
        let taken = watcher.json(&["stake", "withdraw"]).await?;
        ensure!(taken["withdrawn"] == "50000000", "{taken}");
        let gained = stack.held(watcher.address()).await? - before;
        ensure!(gained.to_string() == "50000000", "{gained} came");
        Ok(())
    })
    .await
}
