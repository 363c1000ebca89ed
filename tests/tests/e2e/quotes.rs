//! What does not come to run: the right words, and nothing left over.

use anyhow::{bail, ensure};
use chain::{
    Revert, SendError,
    abi::{Leases::LeasesErrors, Registry},
};
use protocol::lease::{CloseReason, State};
use tests::{ALLOWANCE, Setup, Stack, story};

/// The reason for which Leases refused a transaction.
fn refusal<T: std::fmt::Debug>(sent: Result<T, SendError>) -> anyhow::Result<LeasesErrors> {
    match sent {
        Err(SendError::Refused(revert)) => {
            let Revert::Leases(err) = *revert else { bail!("it was refused otherwise: {revert}") };
            Ok(err)
        }
        other => bail!("it was not refused: {other:?}"),
    }
}

/// Has the provider know that the publisher has an image: by a lease that is over at once.
async fn push(stack: &Stack, image: &str) -> anyhow::Result<()> {
    let pod = stack.probe("pushes", image, "")?;
    let lease = stack.publisher.deploy(&pod).await?.lease;
    stack.publisher.down(lease).await?;
    stack.closed(lease, CloseReason::PayerDone).await?;
    stack.nothing_is_left().await
}

#[tokio::test]
async fn secrets_sealed_to_a_wrong_key_close_the_lease() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        // Somebody restored the provider's folder without its keys: the listing names one that it does not have.
        let registry = stack.chain.registry();
        let view = registry.listingOf(stack.provider.address()).call().await?;
        let mut listing = view.listing;
        listing.sealKey = seal::SealingKey::generate().public().0.into();
        let sender = stack.sender(&stack.provider.signer);
        let call = Registry::listCall { listing };
        sender.send(stack.chain.deployment().registry, &call).await?;

        let pod = stack.guestbook()?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(3, &["did not start and is closed", "secrets"])?;
        let openings = stack.openings().await?;
        ensure!(openings.len() == 1, "there are {openings:?}");
        stack.closed(openings[0].lease, CloseReason::SecretsUnreadable).await?;
        stack.nothing_is_left().await?;
        let bond = stack.chain.staking().bondOf(stack.provider.address()).call().await?;
        ensure!(bond.locked == 0, "{} of the bond are locked", bond.locked);
        // Nothing ran, so all of the money comes back.
        stack.publisher.json(&["withdraw", "all"]).await?;
        let held = stack.held(stack.publisher.address()).await?;
        ensure!(held == ALLOWANCE, "{held} came back");
        ensure!(stack.publisher.json(&["ps"]).await? == serde_json::json!([]), "ps lists it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn too_little_money_opens_nothing() -> anyhow::Result<()> {
    story(Setup { lock: 3_600, ..Setup::default() }, async |stack| {
        let pod = stack.guestbook()?;
        let args = ["deploy", pod.path(), "--yes"];
        let said = stack.publisher.run(&args).await?;
        said.refused(1, &["cannot pay for this", "roadstead fund"])?;
        let said = stack.publisher.run(&[&args[..], &["--fund", "0.001"]].concat()).await?;
        said.refused(1, &["cannot pay for this", "more are needed"])?;
        let said = stack.publisher.run(&[&args[..], &["--fund", "5000"]].concat()).await?;
        said.refused(1, &["1000", "5000"])?;
        let held = stack.held(stack.publisher.address()).await?;
        ensure!(held == ALLOWANCE, "{held} are left in the wallet");
        stack.nothing_came_of_it().await
    })
    .await
}

#[tokio::test]
async fn a_full_provider_makes_no_offer_and_gives_the_room_to_who_came_first() -> anyhow::Result<()>
{
    story(Setup { cpu: "0.3", ..Setup::default() }, async |stack| {
        let image = stack.image("full").await?;
        let (one, two) =
            (stack.probe("one", &image.name, "")?, stack.probe("two", &image.name, "")?);
        push(stack, &image.name).await?;
        // Both are quoted, as long as there is room; whoever opens first has it.
        let quotes = [stack.publisher.quote(&one).await?, stack.publisher.quote(&two).await?];
        let sender = stack.ready_account().await?;
        let leases = stack.chain.deployment().leases;
        stack.hold_blocks().await?;
        for (quote, slot) in quotes.iter().zip(0..) {
            sender.send(leases, &stack.open(quote, slot)).await?;
        }
        stack.chain_goes_on().await?;
        let ids: Vec<u64> = stack.openings().await?.iter().map(|opening| opening.lease).collect();
        ensure!(ids.len() == 3, "there are leases {ids:?}");
        stack.closed(ids[2], CloseReason::ProviderFull).await?;
        stack.active(ids[1]).await?;
        ensure!(stack.provider.site(&one.host)?.get("/").await? == "probe", "it does not answer");

        let three = stack.probe("three", &image.name, "")?;
        let said = stack.publisher.run(&["deploy", three.path(), "--yes"]).await?;
        said.refused(1, &["no provider made an offer", "are needed", "are free"])?;
        ensure!(stack.openings().await?.len() == 3, "a lease was opened without an offer");
        let containers = stack.docker.containers(stack.provider.address()).await?;
        ensure!(containers.len() == 1, "there are {containers:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_quote_is_used_once_and_in_time() -> anyhow::Result<()> {
    story(Setup { quote_life: 120, ..Setup::default() }, async |stack| {
        let image = stack.image("quoted").await?;
        let pod = stack.probe("quoted", &image.name, "")?;
        let sender = stack.ready_account().await?;
        let leases = stack.chain.deployment().leases;

        let late = stack.publisher.quote(&pod).await?;
        stack.pass(121).await?;
        let err = refusal(sender.send(leases, &stack.open(&late, 0)).await)?;
        ensure!(matches!(err, LeasesErrors::Leases_QuoteExpired(_)), "{err:?}");
        stack.nothing_came_of_it().await?;

        let quote = stack.publisher.quote(&pod).await?;
        let mut cheaper = stack.open(&quote, 0);
        cheaper.quote.rate -= 1;
        let err = refusal(sender.send(leases, &cheaper).await)?;
        ensure!(matches!(err, LeasesErrors::Leases_BadSignature(_)), "{err:?}");
        stack.nothing_came_of_it().await?;

        push(stack, &image.name).await?;
        sender.send(leases, &stack.open(&quote, 0)).await?;
        let err = refusal(sender.send(leases, &stack.open(&quote, 1)).await)?;
        ensure!(matches!(err, LeasesErrors::Leases_QuoteUsed(_)), "{err:?}");
        let openings = stack.openings().await?;
        ensure!(openings.len() == 2, "there are {openings:?}");
        let lease = openings[1].lease;
        stack.active(lease).await?;
        stack.publisher.down(lease).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        stack.nothing_is_left().await?;
        // Its slot is free again; the quote is not.
        let err = refusal(sender.send(leases, &stack.open(&quote, 0)).await)?;
        ensure!(matches!(err, LeasesErrors::Leases_QuoteUsed(_)), "{err:?}");
        ensure!(stack.state(lease).await? == State::Closed, "it is open again");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_crashes_closes_the_lease_with_its_last_words() -> anyhow::Result<()> {
    story(Setup { start_within: 30, ..Setup::default() }, async |stack| {
        let image = stack.image("crashing").await?;
        let mut pod = stack.probe("crashing", &image.name, "")?;
        pod.change("\"serve\", \"8080\"", "\"end\", \"7\"")?;
        let said = stack.publisher.run(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?;
        said.refused(3, &["did not start and is closed", "service web", "it ended with code 7"])?;
        let openings = stack.openings().await?;
        stack.closed(openings[0].lease, CloseReason::Unhealthy).await?;
        stack.nothing_is_left().await?;
        stack.publisher.json(&["withdraw", "all"]).await?;
        let held = stack.held(stack.publisher.address()).await?;
        ensure!(held == ALLOWANCE, "{held} came back");
        Ok(())
    })
    .await
}
