//! Add-ons: Prometheus over the provider's own metrics, bidders, and what those that are hostile can do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use protocol::lease::State;
use serde_json::Value;
use tests::{PodFile, Provider, Setup, Stack, story, until, until_within};
use tokio::net::TcpStream;

/// How long an add-on may take to do what it does in its own time.
const PATIENCE: Duration = Duration::from_secs(90);

/// An address of this machine that nobody has.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn addon(stack: &Stack, args: &[&str]) -> anyhow::Result<Value> {
    stack.provider.verb(&[&["addon"], args].concat()).await
}

/// What `addon list` says of one add-on.
async fn listed(stack: &Stack, name: &str) -> anyhow::Result<Value> {
    let all = addon(stack, &["list"]).await?;
    let rows = all.as_array().context("there is no list")?;
    let row = rows.iter().find(|row| row["name"] == name);
    Ok(row.with_context(|| format!("{name} is not listed: {all}"))?.clone())
}

async fn running(stack: &Stack, name: &str) -> anyhow::Result<()> {
    until(&format!("{name} runs"), async || {
        let row = listed(stack, name).await?;
        ensure!(row["phase"] == "running", "{row}");
        Ok(Some(()))
    })
    .await
}

/// The one container of the provider's that is no lease's.
async fn container(stack: &Stack) -> anyhow::Result<tests::Container> {
    let mut containers = stack.docker.containers(stack.provider.address()).await?;
    containers.retain(|container| container.lease == 0);
    ensure!(containers.len() == 1, "there are {containers:?}");
    containers.pop().context("there is none")
}

async fn fetch(url: &str, more: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
    let mut request = reqwest::Client::builder().no_proxy().build()?.get(url);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// What Prometheus answers to a query, if it has one value.
async fn query(page: SocketAddr, query: &str) -> anyhow::Result<Option<f64>> {
    let url = format!("http://{page}/api/v1/query");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut url = reqwest::Url::parse(&url)?;
    url.query_pairs_mut().append_pair("query", query);
    let answer: Value = client.get(url).send().await?.error_for_status()?.json().await?;
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.and_then(|value| value.parse().ok()))
}

#[tokio::test]
async fn prometheus_keeps_the_providers_metrics_over_restarts() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.prometheus().await?;
        ensure!(listed(stack, "prometheus").await?["phase"] == "off");
        let page = free_address()?;
        let at = page.to_string();
        let said =
            addon(stack, &["enable", "prometheus", "--image", &image, "--page", &at]).await?;
        ensure!(said["grants"] == serde_json::json!(["metrics:read"]), "{said}");
        running(stack, "prometheus").await?;
        let bonded = "roadstead_provider_stake_tokens{part=\"bonded\"}";
        let scraped = async || Ok(query(page, bonded).await?.filter(|value| *value == 500.0));
        until_within("the metrics are scraped", PATIENCE, scraped).await?;

        // It has its room out of the capacity, and what is quoted is what is left.
        let row = listed(stack, "prometheus").await?;
        ensure!(row["reserved"]["cpu"] == 250, "{row}");
        let status = stack.provider.verb(&["status"]).await?;
        ensure!(status["here"]["free"]["cpu"] == 750, "{}", status["here"]["free"]);

        // It does not end with the provider, and is adopted with its data.
        let before = container(stack).await?;
        let host = stack.docker.inspect(&before.id).await?.host_config.unwrap_or_default();
        ensure!(host.port_bindings.unwrap_or_default().is_empty(), "it has ports of the machine");
        stack.provider.kill().await?;
        let lost = query(page, "up").await;
        ensure!(lost.is_err(), "its page is the provider's to show: {lost:?}");
        stack.provider.start().await?;
        running(stack, "prometheus").await?;
        ensure!(container(stack).await?.id == before.id, "it was made anew");
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let again = format!("timestamp(up) > {} and up == 1", since.as_secs());
        let scraped = async || query(page, &again).await;
        until_within("it scrapes again", PATIENCE, scraped).await?;

        // One that is killed is started again, and let in again.
        stack.docker.kill(&before.id).await?;
        until("it is started again", async || {
            let container = container(stack).await?;
            Ok((container.state == "running").then_some(()))
        })
        .await?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let again = format!("timestamp(up) > {} and up == 1", since.as_secs());
        let scraped = async || query(page, &again).await;
        until_within("it scrapes after it was killed", PATIENCE, scraped).await?;

        addon(stack, &["disable", "prometheus"]).await?;
        stack.nothing_is_left().await?;
        until("it is off", async || {
            let row = listed(stack, "prometheus").await?;
            Ok((row["phase"] == "off" && row["enabled"] == false).then_some(()))
        })
        .await?;
        let status = stack.provider.verb(&["status"]).await?;
        ensure!(status["here"]["free"]["cpu"] == 1_000, "{}", status["here"]["free"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hostile_addon_reaches_its_door_alone_and_only_with_its_token() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.probe_addon("hostile").await?;
        let page = free_address()?;
        let at = page.to_string();
        let enable = ["enable", "prometheus", "--image", &image, "--page", &at];
        addon(stack, &enable).await?;
        running(stack, "prometheus").await?;
        let ask = async |path: &str| -> anyhow::Result<String> {
            let (code, said) = fetch(&format!("http://{page}{path}"), &[]).await?;
            ensure!(code == 200, "{path}: {code} {said}");
            Ok(said)
        };
        let metrics = ask("/ask/own/metrics").await?;
        ensure!(metrics.contains("200 OK") && metrics.contains("roadstead_provider_"), "{metrics}");
        let word = |name: &str| std::fs::read_to_string(stack.provider.data().join(name));
        let (own, admin) = (word("addons/prometheus.token")?, word("admin.token")?);
        for (token, path, wanted) in [
            ("none", "metrics", "401"),
            (admin.as_str(), "metrics", "401"),
            ("own", "status.json", "404"),
            ("own", "login", "404"),
            ("own", "", "404"),
        ] {
            let said = ask(&format!("/ask/{token}/{path}")).await?;
            ensure!(said.starts_with(&format!("HTTP/1.1 {wanted}")), "{path}: {said}");
        }

        // Nothing of the machine: not by its bridge, not by what looks like its loopback.
        let ip = container(stack).await?.ip.context("it has no address")?;
        let gateway = Ipv4Addr::from(u32::from(ip) & !63 | 1);
        let (api, admin_port) = (stack.provider.api().port(), stack.provider.admin().port());
        ensure!(TcpStream::connect((gateway, api)).await.is_ok(), "nobody is there to be reached");
        for (to, port) in [(gateway, api), (gateway, 9640), (Ipv4Addr::LOCALHOST, admin_port)] {
            let said = ask(&format!("/connect/{to}/{port}")).await?;
            ensure!(said.contains("refused"), "{to}:{port}: {said}");
        }

        // Its token opens nothing at the admin page, and its own page is told no secret of that one.
        let admin_page = format!("http://{}", stack.provider.admin());
        let bearer = format!("Bearer {}", own.trim());
        for path in ["/metrics", "/status.json", "/"] {
            let url = format!("{admin_page}{path}");
            let (code, text) = fetch(&url, &[("authorization", bearer.as_str())]).await?;
            ensure!(code == 401, "{path}: {code} {text}");
        }
        let secrets = [("cookie", "roadstead_provider=c00kie"), ("authorization", "Bearer w0rd")];
        let (_, head) = fetch(&format!("http://{page}/head"), &secrets).await?;
        let told = head.contains("c00kie") || head.contains("w0rd");
        ensure!(head.starts_with("GET /head") && !told, "{head}");
        let (code, _) = fetch(&format!("http://{page}/head"), &[("host", "example.org")]).await?;
        ensure!(code == 421, "a foreign name leads to it: {code}");

        // Who asks without end is told to wait; the provider goes on.
        until_within("it is told to wait", PATIENCE, async || {
            let refused: usize = ask("/flood/500/nothing").await?.parse()?;
            Ok((refused > 0).then_some(()))
        })
        .await?;

        // A new token is another container's, and the old one is worth nothing.
        addon(stack, &enable).await?;
        until("the old token is worth nothing, and the new one opens", async || {
            let old = ask(&format!("/ask/{}/metrics", own.trim())).await?;
            let new = ask("/ask/own/metrics").await?;
            let done = old.starts_with("HTTP/1.1 401") && new.starts_with("HTTP/1.1 200");
            ensure!(done, "{old} {new}");
            Ok(Some(()))
        })
        .await?;
        addon(stack, &["disable", "prometheus"]).await?;
        stack.nothing_is_left().await
    })
    .await
}

/// A pod whose order binds some of a bond.
async fn ordered(stack: &mut Stack) -> anyhow::Result<PodFile> {
    let image = stack.image("ordered").await?;
    let mut pod = stack.probe("ordered", &image.name, "")?;
    pod.change("x-roadstead:\n", "x-roadstead:\n  sla: { coverage: 5 }\n")?;
    Ok(pod)
}

/// Enables the bidder of a provider with a strategy.
async fn bids(provider: &Provider, image: &str, strategy: &str) -> anyhow::Result<()> {
    let file = provider.data().join("bidder.toml");
    std::fs::write(&file, format!("poll_ms = 500\n[strategy]\n{strategy}\n"))?;
    let file = file.to_str().context("the file has no name")?;
    provider.verb(&["addon", "enable", "bidder", "--image", image, "--file", file]).await?;
    Ok(())
}

/// What a provider's bidder made of an order.
async fn bid(provider: &Provider, order: u64) -> anyhow::Result<Value> {
    let all = provider.verb(&["bids"]).await?;
    let rows = all.as_array().context("there is no list")?;
    let row = rows.iter().find(|row| row["order"] == order);
    Ok(row.with_context(|| format!("order {order} is not listed: {all}"))?.clone())
}

/// Lets a provider's wins lose something where they do not start, and starts it anew.
async fn risks(provider: &mut Provider, limits: &str) -> anyhow::Result<()> {
    provider.stop().await?;
    let mut text = std::fs::read_to_string(provider.config())?;
    text.push_str(&format!("\n[bids]\n{limits}\n"));
    std::fs::write(provider.config(), text)?;
    provider.start().await
}

#[tokio::test]
async fn bidders_underbid_one_another_and_say_why_they_stop() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.bidder().await?;
        let mut other = stack.another_provider(&Setup::default()).await?;
        // Both have the same prices; one asks for a tenth more, the other goes down to half a tenth more.
        bids(&stack.provider, &image, "kind = \"fixed-margin\"\nmargin_bps = 1000").await?;
        bids(&other, &image, "kind = \"floor-and-step\"\nfloor_bps = 10500").await?;

        let pod = ordered(stack).await?;
        let place = ["order", "place", pod.path(), "--max-price", "0.02/h", "--duration", "1h"];
        let args = [&place[..], &["--fund", "5", "--yes"]].concat();
        let order = stack.publisher.json(&args).await?["order"].as_u64().context("no order")?;
        // The order asks for coverage, and its publisher could have a winner lose by withholding the pod.
        for provider in [&stack.provider, &other] {
            until_within("the risk is named", PATIENCE, async || {
                let row = bid(provider, order).await?;
                ensure!(row["why"]["reason"] == "no-show-limit", "{row}");
                Ok(Some(()))
            })
            .await?;
        }
        for provider in [&mut stack.provider, &mut other] {
            risks(provider, "max_no_show = \"0.5\"").await?;
        }
        let won = until_within("the better bid leads", PATIENCE, async || {
            let (theirs, ours) = (bid(&other, order).await?, bid(&stack.provider, order).await?);
            let done = theirs["standing"] == "leads" && ours["why"]["reason"] == "dearer";
            ensure!(done, "{theirs} {ours}");
            Ok(Some(theirs))
        })
        .await?;
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u128>().ok());
        let list = number(&won["listPrice"]).context("there is no list price")?;
        let rate = number(&won["rate"]).context("there is no rate")?;
        ensure!(rate >= list * 105 / 100 && rate < list * 110 / 100, "{rate} for {list}");

        // The winner gets the pod with the award, and runs it.
        let id = order.to_string();
        let awarded = stack.publisher.json(&["order", "award", &id, pod.path()]).await?;
        let lease = awarded["lease"].as_u64().context("there is no lease")?;
        ensure!(stack.state(lease).await? == State::Active, "lease {lease} does not run");
        let site = other.site(&pod.host)?;
        site.get("/healthz").await?;
        until("it is told who won", async || {
            let (theirs, ours) = (bid(&other, order).await?, bid(&stack.provider, order).await?);
            let done = theirs["lease"] == lease && ours["standing"] == "lost";
            ensure!(done, "{theirs} {ours}");
            Ok(Some(()))
        })
        .await?;
        stack.publisher.json(&["down", &lease.to_string()]).await?;
        for provider in [&stack.provider, &other] {
            provider.verb(&["addon", "disable", "bidder"]).await?;
        }
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_hostile_bidder_bids_within_the_operators_limits_at_most() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let limits = "max_no_show = \"0.5\"\nper_hour = 2\nfloor_percent = 100";
        risks(&mut stack.provider, limits).await?;
        // It has no network at all, so it is asked through Docker what the provider says.
        let image = stack.probe_addon("hostile").await?;
        let enable = ["enable", "bidder", "--image", &image];
        addon(stack, &enable).await?;
        running(stack, "bidder").await?;
        let id = container(stack).await?.id;
        let ask = async |docker: &tests::Docker, token: &str, path: &str, body: &str| {
            docker.exec(&id, &["/bin/roadstead-probe", "ask", token, path, body]).await
        };
        let docker = stack.docker.clone();
        let pod = ordered(stack).await?;
        let place = ["order", "place", pod.path(), "--max-price", "0.02/h", "--duration", "1h"];
        let args = [&place[..], &["--fund", "5", "--yes"]].concat();
        let order = stack.publisher.json(&args).await?["order"].as_u64().context("no order")?;
        let seen = until("the order is told of", async || {
            let said = ask(&docker, "own", "addon/v1/orders", "").await?;
            let body = said.split("\r\n\r\n").nth(1).context("there is no body")?;
            let told: Value = serde_json::from_str(body)?;
            Ok(told["orders"].as_array().and_then(|all| all.first().cloned()))
        })
        .await?;
        ensure!(seen["order"] == order && seen["obstacle"] == Value::Null, "{seen}");
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u128>().ok());
        let list = number(&seen["listPrice"]).context("there is no list price")?;
        let most = number(&seen["nextRate"]).context("there is no next rate")?;

        let intent = |order: u64, rate: u128| format!(r#"{{"order":{order},"rate":"{rate}"}}"#);
        for (token, path, body, status, words) in [
            ("none", "addon/v1/bids", intent(order, list), "401", "Bearer"),
            ("own", "metrics", String::new(), "403", "metrics:read"),
            ("own", "addon/v1/bids", intent(order, list - 1), "409", "floor"),
            ("own", "addon/v1/bids", intent(order, 0), "409", "floor"),
            ("own", "addon/v1/bids", intent(order, most + 1), "409", "at most"),
            ("own", "addon/v1/bids", intent(order + 1, list), "404", "is not one"),
            ("own", "addon/v1/bids", r#"{"order":1,"rate":"1","to":"0x0"}"#.into(), "422", "to"),
        ] {
            let said = ask(&docker, token, path, &body).await?;
            let right = said.starts_with(&format!("HTTP/1.1 {status}")) && said.contains(words);
            ensure!(right, "{path} {body}: {said}");
        }
        let bond = stack.chain.staking().bondOf(stack.provider.address()).call().await?;
        ensure!(bond.locked == 0, "{} of the bond are locked", bond.locked);

        // Two bids an hour, whatever for, and not over itself.
        let said = ask(&docker, "own", "addon/v1/bids", &intent(order, most)).await?;
        ensure!(said.starts_with("HTTP/1.1 200"), "{said}");
        let said = ask(&docker, "own", "addon/v1/bids", &intent(order, list)).await?;
        ensure!(said.starts_with("HTTP/1.1 409") && said.contains("leads"), "{said}");
        let row = bid(&stack.provider, order).await?;
        ensure!(row["standing"] == "leads" && number(&row["rate"]) == Some(most), "{row}");
        let bond = stack.chain.staking().bondOf(stack.provider.address()).call().await?;
        ensure!(bond.locked == 5_500_000, "{} of the bond are locked", bond.locked);
        let cancelled = order.to_string();
        stack.publisher.json(&["order", "cancel", &cancelled]).await?;
        let mut answers = Vec::new();
        for _ in 0..2 {
            let placed = stack.publisher.json(&args).await?;
            let order = placed["order"].as_u64().context("no order")?;
            let said = until("the next one is told of", async || {
                let said = ask(&docker, "own", "addon/v1/bids", &intent(order, most)).await?;
                Ok((!said.starts_with("HTTP/1.1 404")).then_some(said))
            })
            .await?;
            answers.push(said);
            stack.publisher.json(&["order", "cancel", &order.to_string()]).await?;
        }
        ensure!(answers[0].starts_with("HTTP/1.1 200"), "{answers:?}");
        let bounded = answers[1].starts_with("HTTP/1.1 409") && answers[1].contains("per_hour");
        ensure!(bounded, "{answers:?}");

        // It has no network but its own loopback, and there nothing but its door.
        let networks = stack.docker.inspect(&id).await?.network_settings;
        let networks = networks.and_then(|settings| settings.networks).unwrap_or_default();
        ensure!(networks.keys().all(|name| name == "none"), "it is on {networks:?}");
        addon(stack, &["disable", "bidder"]).await?;
        stack.nothing_is_left().await
    })
    .await
}

#[tokio::test]
async fn a_program_of_the_operators_decides() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        risks(&mut stack.provider, "max_no_show = \"0.5\"").await?;
        let image = stack.bidder().await?;
        let program = "kind = \"scripted\"\nprogram = [\"/bin/roadstead\", \"--version\"]";
        bids(&stack.provider, &image, program).await?;
        let pod = ordered(stack).await?;
        let place = ["order", "place", pod.path(), "--max-price", "0.02/h", "--duration", "1h"];
        let args = [&place[..], &["--fund", "5", "--yes"]].concat();
        let order = stack.publisher.json(&args).await?["order"].as_u64().context("no order")?;
        // What answers something else than a bid makes none, and is said to have.
        until_within("the program's answer is told", PATIENCE, async || {
            let row = bid(&stack.provider, order).await?;
            let words = row["why"]["words"].as_str().unwrap_or_default();
            ensure!(row["why"]["reason"] == "program" && words.contains("roadstead"), "{row}");
            Ok(Some(()))
        })
        .await?;
        let program = "kind = \"scripted\"\nprogram = [\"/bin/roadstead-probe\", \"bid\"]";
        bids(&stack.provider, &image, program).await?;
        until_within("the program's bid leads", PATIENCE, async || {
            let row = bid(&stack.provider, order).await?;
            let leads = row["standing"] == "leads" && row["rate"] == row["listPrice"];
            ensure!(leads && row["why"] == Value::Null, "{row}");
            Ok(Some(()))
        })
        .await?;
        stack.provider.verb(&["addon", "disable", "bidder"]).await?;
        stack.publisher.json(&["order", "cancel", &order.to_string()]).await?;
        stack.nothing_is_left().await
    })
    .await
}
