//! Which providers come into question: judged by what the chain tells of them, whoever names them.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256},
    signers::local::PrivateKeySigner,
};
use anyhow::{Context as _, ensure};
use chain::abi::{
    IRegistry::{Listing, Prices},
    Registry,
};
use protocol::lease::CloseReason;
use serde_json::Value;
use tests::{Setup, Stack, story, until};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::page::postgres::Postgres;

/// Has a provider list itself anew, with what `change` makes of its listing.
async fn list(
    stack: &Stack,
    signer: &PrivateKeySigner,
    change: impl FnOnce(&mut Listing),
) -> anyhow::Result<()> {
    let registry = stack.chain.registry();
    let mut listing = registry.listingOf(signer.address()).call().await?.listing;
    change(&mut listing);
    let call = Registry::listCall { listing };
    stack.sender(signer).send(stack.chain.deployment().registry, &call).await?;
    Ok(())
}

/// Who is listed, in its order.
fn who(list: &Value) -> anyhow::Result<Vec<Address>> {
    let list = list.as_array().context("no list")?;
    list.iter().map(|one| Ok(one["provider"].as_str().context("no address")?.parse()?)).collect()
}

/// What excludes one of a list: the criteria, and what is told of them.
fn excluded(list: &Value, provider: Address) -> anyhow::Result<Vec<(String, String)>> {
    let list = list.as_array().context("no list")?;
    let one = list.iter().find(|one| one["provider"] == serde_json::json!(provider));
    let whys = one.context("it is not in the list")?["whyNot"].as_array().context("no reasons")?;
    let text = |why: &Value, key: &str| why[key].as_str().unwrap_or_default().to_owned();
    Ok(whys.iter().map(|why| (text(why, "criterion"), text(why, "text"))).collect())
}

#[tokio::test]
async fn a_pod_goes_where_its_expression_holds() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        // One is cheap, one is dear and in Europe, and of one there is nothing but a listing.
        let dear = Setup { price: "0.03/h", ..Setup::default() };
        let second = stack.another_provider(&dear).await?;
        let hollow = stack.stranger().await?;
        list(stack, &stack.provider.signer, |listing| listing.region = "us-east".into()).await?;
        list(stack, &second.signer, |listing| listing.region = "EU-West".into()).await?;
        let claims = |listing: &mut Listing| {
            *listing = Listing {
                endpoint: "https://127.0.0.1:9".into(),
                region: "eu-north".into(),
                prices: Prices { cpu: 1, memoryMiB: 1, storageMiB: 1 },
                tlsKey: B256::repeat_byte(1),
                sealKey: B256::repeat_byte(2),
                measurement: B256::repeat_byte(3),
            };
        };
        list(stack, &hollow.signer, claims).await?;
        let (us, eu, none) = (stack.provider.address(), second.address(), hollow.address());

        let image = stack.image("choosy").await?;
        let mut pod = stack.probe("choosy", &image.name, "")?;
        let publisher = stack.publisher.clone();
        let file = pod.path().to_owned();
        let ask = async |more: &[&str]| publisher.json(&[&["providers"], more].concat()).await;
        let holds = async |expression: &str| {
            let found = ask(&["--for", &file, "--where", expression]).await;
            who(&found.with_context(|| expression.to_owned())?)
        };

        // The cheapest first, with what the pod costs; who is unreachable says nothing of itself.
        let all = ask(&["--for", &file]).await?;
        ensure!(who(&all)? == [none, us, eu], "{all}");
        ensure!(all[0]["info"].is_null() && all[1]["info"]["running"] == 0, "{all}");
        let rate = |index: usize| all[index]["price"].as_str().unwrap_or_default().parse::<u128>();
        ensure!(rate(0)? == 1_306 && rate(1)? < rate(2)?, "{all}");
        ensure!(all[1]["freeBond"] == "500000000" && all[0]["freeBond"] == "0", "{all}");

        ensure!(holds("region.startsWith(\"eu\")").await? == [none, eu]);
        ensure!(holds("free_stake >= 500 && bonded == 500.0").await? == [us, eu]);
        ensure!(holds("price < 0.005 && bonded > 0").await? == [us]);
        ensure!(holds("price > 0.005").await? == [eu]);
        ensure!(holds("attested() && seen < 86400").await? == [none]);
        ensure!(holds(&format!("address in [\"{us}\", \"{eu}\"]")).await? == [us, eu]);

        let wanted = "region.startsWith(\"eu\") && bonded > 0";
        let told = ask(&["--where", wanted, "--why-not"]).await?;
        ensure!(excluded(&told, eu)?.is_empty(), "{told}");
        let region = "region.startsWith(\"eu\") (region is \"us-east\")";
        ensure!(excluded(&told, us)? == [("where".into(), region.into())], "{told}");
        let bond = "bonded > 0 (bonded is 0.00)";
        ensure!(excluded(&told, none)? == [("where".into(), bond.into())], "{told}");

        // Who vouches is read from the events, and the last word counts.
        let (auditor, provider) = (publisher.address().to_string(), eu.to_string());
        let by = format!("vouched(\"gdpr\", \"{auditor}\")");
        ensure!(holds("vouched(\"gdpr\")").await?.is_empty());
        publisher.json(&["vouch", &provider, "gdpr"]).await?;
        ensure!(holds("vouched(\"gdpr\")").await? == [eu] && holds(&by).await? == [eu]);
        ensure!(holds(&by.replace(&auditor, &provider)).await?.is_empty());
        publisher.json(&["vouch", &provider, "gdpr", "--revoke"]).await?;
        ensure!(holds(&by).await?.is_empty());

        // What is typed wrong, and what is not known.
        let typed = async |args: &[&str]| publisher.run(&[&["providers"], args].concat()).await;
        typed(&["--where", "regoin == \"eu\""]).await?.refused(2, &["did you mean region"])?;
        typed(&["--where", "region == \"eu"]).await?.refused(2, &["at character 11"])?;
        let fine = "free_stake > 0.0000001";
        typed(&["--where", fine]).await?.refused(1, &["--where", "the token's 6"])?;
        typed(&["--where", "leases > 1"]).await?.refused(1, &["not known from the chain"])?;
        typed(&["--where", "price < 1"]).await?.refused(1, &["--for FILE"])?;

        // The file's own: the dear one is taken, though another is cheaper.
        pod.change(
            "x-roadstead:\n",
            "x-roadstead:\n  providers: { where: 'region == \"eu-west\" && free_stake >= 100' }\n",
        )?;
        let checked = publisher.json(&["check", &file]).await?;
        ensure!(who(&checked["prices"])? == [eu, none, us], "{checked}");
        ensure!(excluded(&checked["prices"], eu)?.is_empty(), "{checked}");
        ensure!(excluded(&checked["prices"], none)?.len() == 2, "{checked}");
        let quotes = publisher.json(&["quote", &file]).await?;
        ensure!(quotes.as_array().is_some_and(|quotes| quotes.len() == 1), "{quotes}");
        let lease = publisher.deploy(&pod).await?.lease;
        ensure!(stack.lease(lease).await?.provider == eu, "it runs somewhere else");
        ensure!(second.site(&pod.host)?.get("/").await? == "probe", "it does not answer");
        publisher.down(lease).await?;
        stack.closed(lease, CloseReason::PayerDone).await?;

        // Nobody comes into question, and it is told why.
        pod.change("eu-west", "mars")?;
        let region = "region == \"mars\" (region is \"eu-west\")";
        let deploy = ["deploy", &file, "--yes"];
        publisher.run(&deploy).await?.refused(1, &["none of the 3", region])?;
        pod.change("region == \"mars\" && free_stake >= 100", "open_leases == 0")?;
        publisher.run(&deploy).await?.refused(1, &["not known from the chain"])?;
        pod.change("open_leases == 0", "region == \"eu\" || regoin == \"eu\"")?;
        publisher
            .run(&deploy)
            .await?
            .refused(1, &["x-roadstead.providers.where", "character 19"])?;
        pod.change("region == \"eu\" || regoin == \"eu\"", "true")?;
        pod.change("  providers:", "  sla: { coverage: 600 }\n  providers:")?;
        let bond = "free_stake is 500.00, and 600.00 of coverage are wanted";
        publisher.run(&deploy).await?.refused(1, &["none of the 3", bond])?;
        Ok(())
    })
    .await
}

/// A market that answers the same to everything.
async fn says(
    tasks: &mut JoinSet<()>,
    status: u16,
    body: impl Into<String>,
    after: Duration,
) -> anyhow::Result<String> {
    let (status, body) = (axum::http::StatusCode::from_u16(status)?, body.into());
    let location = [(axum::http::header::LOCATION, "http://169.254.169.254/")];
    let answer = axum::Router::new().fallback(async move || {
        tokio::time::sleep(after).await;
        (status, location, body)
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tasks.spawn(async move {
        if let Err(err) = axum::serve(listener, answer).await {
            eprintln!("the market of the test failed: {err}");
        }
    });
    Ok(url)
}

#[tokio::test]
async fn a_market_names_and_the_chain_judges() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let dear = stack.another_provider(&Setup { price: "0.03/h", ..Setup::default() }).await?;
        let (cheap, dear) = (stack.provider.address(), dear.address());
        let image = stack.image("named").await?;
        let mut pod = stack.probe("named", &image.name, "")?;
        let (publisher, file) = (stack.publisher.clone(), pod.path().to_owned());

        // One that mirrors the chain.
        let mut postgres = Postgres::start()?;
        let (database_url, stop) = (postgres.database()?, CancellationToken::new());
        let deployment = stack.chain.deployment().clone();
        let mut tasks = JoinSet::new();
        let indexer = indexer::Config {
            rpc: vec![stack.rpc()],
            deployment: deployment.clone(),
            database_url: database_url.clone(),
            poll: Duration::from_millis(100),
            subscribe: Vec::new(),
            proof: true,
        };
        let mirrored = indexer::run(indexer, Arc::default(), stop.clone());
        tasks.spawn(async move { anyhow::Ok(mirrored.await?) });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let honest = format!("http://{}", listener.local_addr()?);
        let config = market::Config {
            deployment,
            token: stack.chain.token().await?,
            ttl: stack.chain.registry().TTL().call().await?.to(),
            database_url,
            behind_proxy: false,
            limits: market::Limits::default(),
            stale_after: None,
        };
        let served = market::run(config, listener, stop.clone());
        tasks.spawn(async move { anyhow::Ok(served.await?) });
        let ask = async |market: &str, more: &[&str]| {
            let asked = ["providers", "--for", &file, "--market", market, "--json"];
            publisher.run(&[&asked[..], more].concat()).await
        };
        until("the market names both, and counts their leases", async || {
            let said = ask(&honest, &["--where", "leases == 0 && dark == 0"]).await?;
            Ok((said.code == 0 && who(&said.json()?)? == [cheap, dear]).then_some(()))
        })
        .await?;
        // One that is excluded is told no other reason than its own.
        let counted = "leases == 0 && price > 0.005";
        let said = ask(&honest, &["--where", counted, "--why-not"]).await?;
        ensure!(said.err.is_empty(), "{}", said.err);
        let all = said.json()?;
        ensure!(who(&all)? == [dear, cheap] && excluded(&all, dear)?.is_empty(), "{all}");
        ensure!(excluded(&all, cheap)?.len() == 1, "{all}");
        // If nobody comes into question, that is the market's word, too: the chain is not asked for what it cannot know.
        let said = ask(&honest, &["--where", "leases > 7"]).await?;
        ensure!(said.err.is_empty() && who(&said.json()?)?.is_empty(), "{} {}", said.out, said.err);
        let all = ask(&honest, &["--where", "leases > 7", "--why-not"]).await?.json()?;
        let why = "leases > 7 (leases is 0)";
        ensure!(excluded(&all, cheap)? == [("where".into(), why.into())], "{all}");

        // What it counts is a criterion of a deploy, too; afterwards there is a lease more.
        pod.change(
            "x-roadstead:\n",
            "x-roadstead:\n  providers: { where: 'leases == 0 && free_stake > 0' }\n",
        )?;
        let deploy = ["deploy", &file, "--yes", "--json", "--fund", "1", "--market"];
        pod.change("leases == 0", "leases > 7")?;
        let nobody = publisher.run(&[&deploy[..], &[&honest]].concat()).await?;
        nobody.refused(1, &["none of the 2", why])?;
        pod.change("leases > 7", "leases == 0")?;
        let first = publisher.json(&[&deploy[..], &[&honest]].concat()).await?;
        let first = first["lease"].as_u64().context("no lease")?;
        ensure!(stack.lease(first).await?.provider == cheap, "it is not at the cheapest");
        until("the market has counted the lease", async || {
            let said = ask(&honest, &["--where", "leases == 0"]).await?;
            Ok((said.code == 0 && who(&said.json()?)? == [dear]).then_some(()))
        })
        .await?;
        publisher.down(first).await?;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }

        // Those that are of no use cost nothing but time: the chain is looked through, and says the same.
        pod.change("leases == 0 && free_stake > 0", "free_stake > 0")?;
        let mut liars = JoinSet::new();
        let soon = Duration::ZERO;
        let one = |provider: Address| serde_json::json!({ "provider": provider, "leases": 0 });
        let page = |items: Vec<Value>, next: Option<&str>| {
            serde_json::json!({ "at": {}, "items": items, "next": next }).to_string()
        };
        let stranger = Address::repeat_byte(0xee);
        let endless = page(vec![one(stranger)], Some("again"));
        let many = page(vec![one(stranger); 300], None);
        let useless = [
            ("http://127.0.0.1:9".into(), "Connection refused"),
            (says(&mut liars, 500, "\u{1b}[31mred", soon).await?, "it answers 500"),
            (says(&mut liars, 302, "", soon).await?, "it answers 302"),
            (says(&mut liars, 200, "<html>", soon).await?, "something else than a market"),
            (says(&mut liars, 200, "x".repeat(2 << 20), soon).await?, "longer than"),
            (says(&mut liars, 200, page(vec![], None), soon).await?, "none of the 0"),
            (says(&mut liars, 200, page(vec![one(stranger)], None), soon).await?, "none of the 0"),
            (says(&mut liars, 200, endless, soon).await?, "none of the 0"),
            (says(&mut liars, 200, many, soon).await?, "more providers than it was asked for"),
            (says(&mut liars, 200, "", Duration::from_secs(60)).await?, "takes too long"),
        ];
        for (market, why) in &useless {
            let said = ask(market, &[]).await?;
            ensure!(said.err.contains("not of use") && said.err.contains(why), "{}", said.err);
            ensure!(!said.err.contains('\u{1b}'), "{}", said.err);
            ensure!(who(&said.json()?)? == [cheap, dear], "{market}: {}", said.out);
        }
        for typed in ["ftp://127.0.0.1", "nonsense"] {
            ask(typed, &[]).await?.refused(1, &[typed, "is no URL such as"])?;
        }
        // What a market alone counts is nowhere else to be had.
        let uncounted = serde_json::json!({ "provider": dear, "leases": null });
        for (market, why) in [
            (useless[0].0.clone(), "Connection refused"),
            (useless[1].0.clone(), "it answers 500"),
            (useless[5].0.clone(), "names nobody who is listed"),
            (useless[6].0.clone(), "names nobody who is listed"),
            (
                says(&mut liars, 200, page(vec![uncounted], None), soon).await?,
                "does not say how many leases",
            ),
        ] {
            let said = ask(&market, &["--where", "leases < 9"]).await?;
            said.refused(1, &[&market, why])?;
        }
        // One that names the dear one alone makes the choice poorer, and nothing else.
        let partial =
            says(&mut liars, 200, page(vec![one(dear), one(stranger)], None), soon).await?;
        let said = ask(&partial, &[]).await?;
        ensure!(said.err.is_empty() && who(&said.json()?)? == [dear], "{} {}", said.out, said.err);
        let second = publisher.json(&[&deploy[..], &[&useless[6].0]].concat()).await?;
        let second = second["lease"].as_u64().context("no lease")?;
        ensure!(stack.lease(second).await?.provider == cheap, "it is not at the cheapest");
        publisher.down(second).await?;
        stack.closed(second, CloseReason::PayerDone).await
    })
    .await
}
