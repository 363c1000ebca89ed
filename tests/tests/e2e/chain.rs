//! A chain that is gone for a while, or changes its mind.

use alloy::{
    primitives::Bytes,
    providers::{Provider as _, ext::AnvilApi as _},
    rpc::types::anvil::{ReorgOptions, TransactionData},
};
use anyhow::{Context as _, ensure};
use protocol::lease::{CloseReason, State};
use tests::{Setup, Stack, story, until};

#[tokio::test]
async fn while_the_node_is_gone_pods_stay_and_answer() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let mut pod = stack.guestbook()?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let (site, container) = (stack.provider.site(&pod.host)?, stack.container(lease).await?);

        stack.relay.cut();
        let noticed = async || {
            let log = stack.provider.log();
            Ok(log.contains("nothing is changed until both can be read").then_some(()))
        };
        until("the provider notices", noticed).await?;
        site.sign("Ada", "meanwhile").await?;
        pod.change("guestbook.localhost", "other.localhost")?;
        let said = stack.publisher.run(&["quote", pod.path()]).await?;
        said.refused(1, &["no provider made an offer", "the chain does not answer"])?;
        // Even a close that it cannot read about removes nothing, however deep it is.
        stack.publisher.down(lease).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;
        stack.mine(10).await?;
        ensure!(site.texts().await? == ["meanwhile"], "the book is {:?}", site.texts().await?);
        ensure!(stack.container(lease).await? == container, "the pod did not stay");

        stack.relay.mend();
        stack.nothing_is_left().await?;
        pod.change("other.localhost", "guestbook.localhost")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        ensure!(site.texts().await?.is_empty(), "a new lease has an old volume");
        ensure!(stack.state(lease).await? == State::Active, "the provider did not recover");
        Ok(())
    })
    .await
}

/// A lease's opening, as it was sent, and how deep it is.
async fn opening(stack: &Stack, lease: u64) -> anyhow::Result<(Bytes, u64)> {
    let openings = stack.openings().await?;
    let opening = openings.into_iter().rev().find(|opening| opening.lease == lease);
    let opening = opening.context("the lease was not opened")?;
    let raw = stack.chain.provider().get_raw_transaction_by_hash(opening.tx).await?;
    let head = stack.chain.head().await?.number;
    Ok((raw.context("the opening is not there")?, head - opening.block + 1))
}

#[tokio::test]
async fn a_reorganisation_takes_a_lease_back_and_brings_it_again() -> anyhow::Result<()> {
    // So cheap that nothing is collected meanwhile: all blocks are ours.
    story(Setup { price: "0.00001/h", ..Setup::default() }, async |stack| {
        let image = stack.image("reorg").await?;
        let pod = stack.probe("reorg", &image.name, "")?;
        let node = stack.chain.provider();
        stack.hold_blocks().await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let container = stack.container(lease).await?;
        let site = stack.provider.site(&pod.host)?;

        // Its opening is replaced by nothing, but not yet for good.
        let (raw, depth) = opening(stack, lease).await?;
        ensure!(depth == 2, "the opening is {depth} blocks deep");
        node.anvil_reorg(ReorgOptions { depth, tx_block_pairs: Vec::new() }).await?;
        ensure!(stack.state(lease).await? == State::None, "the lease is still there");
        until("its host is unknown", async || Ok((site.ask("/").await?.0 == 404).then_some(())))
            .await?;
        ensure!(stack.container(lease).await? == container, "the pod went too early");
        stack.mine(2).await?;
        stack.nothing_is_left().await?;

        // It is included after all, and once more in another block: the pod comes, and stays.
        node.send_raw_transaction(&raw).await?.get_receipt().await?;
        stack.active(lease).await?;
        until("it answers again", async || Ok(Some(site.get("/").await?))).await?;
        let again = stack.container(lease).await?;
        ensure!(again.id != container.id, "the pod had not gone");
        let (raw, depth) = opening(stack, lease).await?;
        ensure!(depth == 2, "the opening is {depth} blocks deep");
        let elsewhere = vec![(TransactionData::Raw(raw), 1)];
        node.anvil_reorg(ReorgOptions { depth, tx_block_pairs: elsewhere }).await?;
        ensure!(stack.state(lease).await? == State::Pending, "the lease was not opened again");
        stack.active(lease).await?;
        until("it answers", async || Ok(Some(site.get("/").await?))).await?;
        ensure!(stack.container(lease).await? == again, "the pod was started anew");
        Ok(())
    })
    .await
}
