//! Money: what is earned, and what happens when there is none.

use alloy::{
    primitives::U256, providers::Provider as _, rpc::types::Filter, sol_types::SolEvent as _,
};
use anyhow::ensure;
use chain::abi::Payments;
use protocol::{
    amount::{Amount, Rate, SCALE},
    lease::CloseReason,
};
use tests::{Setup, Stack, story, until};

/// Every `Collected` of a lease's stream up to a block.
async fn collected(stack: &Stack, lease: u64, block: u64) -> anyhow::Result<Vec<u128>> {
    let filter = Filter::new()
        .address(stack.chain.deployment().payments)
        .event_signature(Payments::Collected::SIGNATURE_HASH)
        .topic1(stack.chain.stream_of(lease))
        .from_block(0)
        .to_block(block);
    let logs = stack.chain.provider().get_logs(&filter).await?;
    let amount = |log: &alloy::rpc::types::Log| {
        let event = log.log_decode::<Payments::Collected>()?.inner.data;
        anyhow::Ok(u128::try_from(event.amount)?)
    };
    logs.iter().map(amount).collect()
}

#[tokio::test]
async fn earnings_are_rate_times_time_to_the_unit() -> anyhow::Result<()> {
    // A price that does not divide: 0.25 processors at 1.234567/h.
    story(Setup { price: "1.234567/h", ..Setup::default() }, async |stack| {
        let image = stack.image("earning").await?;
        let pod = stack.probe("earning", &image.name, "")?;
        let (who, payments) = (stack.provider.address(), stack.chain.payments());
        let before = stack.held(who).await?;
        let deployed = stack.publisher.deploy(&pod).await?;
        let account = stack.publisher.account();

        // The account's clock stood still until the lease became active, and goes with the chain's since then.
        let activated = stack.lease(deployed.lease).await?.lease.activatedAt.to::<u64>();
        stack.pass(1_000).await?;
        until("three collections", async || {
            let head = stack.chain.head().await?.number;
            Ok((collected(stack, deployed.lease, head).await?.len() >= 3).then_some(()))
        })
        .await?;
        let head = stack.chain.head().await?;
        let sum: u128 = collected(stack, deployed.lease, head.number).await?.iter().sum();
        let at = head.number.into();
        let owed =
            payments.stream(stack.chain.stream_of(deployed.lease)).block(at).call().await?.owed;
        let clock = payments.account(account).block(at).call().await?.clock.to::<u64>();
        ensure!(clock == head.timestamp - activated, "the clock is at {clock}");
        ensure!(clock >= 1_000, "only {clock} s passed");
        let earned = Rate(deployed.rate).times(clock).map(|units| units.0);
        ensure!(
            Some(sum * SCALE + owed) == earned,
            "{sum} tokens and {owed} units, not {earned:?}"
        );

        // After the close it stands still, and what is left is collected.
        stack.publisher.down(deployed.lease).await?;
        stack.closed(deployed.lease, CloseReason::PayerDone).await?;
        until("all is collected", async || {
            Ok((stack.lease(deployed.lease).await?.owed < SCALE).then_some(()))
        })
        .await?;
        let lease = stack.lease(deployed.lease).await?;
        let secs = lease.lease.endsAt.to::<u64>() - activated;
        let head = stack.chain.head().await?.number;
        let sum: u128 = collected(stack, deployed.lease, head).await?.iter().sum();
        let earned = Rate(deployed.rate).times(secs).map(|units| units.0);
        ensure!(Some(sum * SCALE + lease.owed) == earned, "{sum} and {} of {earned:?}", lease.owed);
        let gained = stack.held(who).await? - before;
        ensure!(gained == U256::from(sum), "the provider has {gained} more, and collected {sum}");
        // What the provider did not get is the publisher's.
        let free = stack.account(account).await?.free;
        let five = Amount(5_000_000).units().map(|units| units.0);
        ensure!(Some(free + sum * SCALE + lease.owed) == five, "{free} units are left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dry_account_pauses_its_pod_until_it_is_topped_up_or_the_lock_is_over()
-> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        site.sign("Ada", "before").await?;
        let container = stack.container(lease).await?;

        let dry = async || {
            let until = stack.lease(lease).await?.fundedUntil.to::<u64>();
            let now = stack.chain.head().await?.timestamp;
            stack.pass(until - now + 1).await
        };
        dry().await?;
        let paused = async || Ok((stack.container(lease).await?.state == "paused").then_some(()));
        until("it is paused", paused).await?;
        let (status, words) = site.ask("/").await?;
        ensure!(status == 503 && words.contains("topped up"), "{status}: {words}");
        let row = stack.publisher.row(lease).await?;
        ensure!(row["state"] == "active" && row["phase"] == "paused", "{row}");

        stack.publisher.json(&["fund", "1"]).await?;
        until("it answers again", async || Ok(Some(site.get("/").await?))).await?;
        ensure!(site.texts().await? == ["before"], "the book is {:?}", site.texts().await?);
        ensure!(stack.container(lease).await?.id == container.id, "it is another container");

        dry().await?;
        until("it is paused", paused).await?;
        stack.pass(59).await?;
        ensure!(stack.container(lease).await?.state == "paused", "it did not stay paused");
        stack.pass(60).await?;
        stack.closed(lease, CloseReason::AccountDry).await?;
        stack.nothing_is_left().await?;
        // The provider has what was paid for: all of it.
        until("all is collected", async || {
            Ok((stack.lease(lease).await?.owed < SCALE).then_some(()))
        })
        .await?;
        let account = stack.account(stack.publisher.account()).await?;
        ensure!(account.rate == 0 && account.lockup == 0, "{account:?}");
        let row = stack.publisher.row(lease).await?;
        ensure!(row["state"] == "closed" && row["closeReason"] == "account-dry", "{row}");
        Ok(())
    })
    .await
}
