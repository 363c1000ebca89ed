//! The provider's own view: its admin page in a browser, its metrics, its mode, and what it refuses for want of room.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{Setup, Stack, browse, story, until, until_within};

/// A page of the provider's, asked for with a token.
async fn page(stack: &Stack, path: &str, token: Option<&str>) -> anyhow::Result<(u16, String)> {
    let url = format!("http://{}{path}", stack.provider.admin());
    let mut request = reqwest::Client::builder().no_proxy().build()?.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

fn token(stack: &Stack, name: &str) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(stack.provider.data().join(name))?)
}

/// The value of a metric, with its labels as they are written.
fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")))?;
    line.trim().parse().ok()
}

#[tokio::test]
async fn an_operator_sees_and_does_it_all_in_a_browser() -> anyhow::Result<()> {
    story(Setup { ports: true, https: true, ..Setup::default() }, async |stack| {
        let image = stack.image("admin").await?;
        let more = format!(
            "  echo:\n    image: {}\n    command: [\"/probe\", \"echo\", \"7000\", \"one \"]\n    ports: [\"7000:7000\"]\n    \
             stop_signal: SIGKILL\n    restart: unless-stopped\n    \
             deploy: {{ resources: {{ limits: {{ cpus: \"0.1\", memory: 32M }} }} }}",
            image.name
        );
        let mut pod = stack.probe("admin", &image.name, &more)?;
        let hosts = "admin.example.org: \"web:8080\", lost.example.org: \"web:8080\"";
        pod.change("admin.localhost: \"web:8080\"", hosts)?;
        stack.provider.authority()?.hide("lost.example.org").await?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let said = stack.provider.verb(&["admin"]).await?;
        let url = said["url"].as_str().context("there is no address")?;
        // Graphs begin with the second look.
        let admin = token(stack, "admin.token")?;
        let path = format!("/leases/{lease}");
        until_within("the pod's use is counted", Duration::from_secs(90), async || {
            let (_, text) = page(stack, &path, Some(&admin)).await?;
            // Pebble names its authorities anew each time.
            let all = ["class=\"stroke\" d=\"M", "Pebble", "did not find the proof for lost"];
            Ok(all.iter().all(|part| text.contains(part)).then_some(()))
        })
        .await?;

        browse("admin.mjs", &[url, &lease.to_string()]).await?;

        // What was done there holds: on chain, for quotes, for payers, and after a restart.
        let view = stack.chain.registry().listingOf(stack.provider.address()).call().await?;
        let cpu = view.listing.prices.cpu;
        ensure!(cpu == 5_555_555, "a millicore is listed at {cpu}");
        let asked = async |stack: &Stack| {
            let info = stack.publisher.json(&["providers"]).await?[0]["info"].take();
            let prices = &info["prices"];
            let all = [&prices["egress"], &prices["publicPort"], &prices["gpu"]];
            ensure!(all == ["38580", "100000000000", "200000000000"], "{info}");
            anyhow::Ok(())
        };
        asked(stack).await?;
        stack.provider.stop().await?;
        stack.provider.start().await?;
        let view = stack.chain.registry().listingOf(stack.provider.address()).call().await?;
        ensure!(view.listing.prices.cpu == cpu, "the restart took the prices back");
        asked(stack).await?;
        let (_, text) = page(stack, &path, Some(&admin)).await?;
        ensure!(text.contains("class=\"stroke\" d=\"M"), "the restart forgot what the pod used");
        let status = stack.provider.verb(&["status"]).await?;
        ensure!(status["here"]["mode"]["mode"] == "maintenance", "{status}");
        let told = async || {
            let said = stack.publisher.run(&["events", &lease.to_string()]).await?;
            Ok(said.out.contains("<b>a new disk</b>").then_some(()))
        };
        until("the payer is told of the maintenance", told).await?;
        let other = stack.probe("other", &image.name, "")?;
        let args = ["deploy", other.path(), "--yes", "--fund", "5"];
        stack.publisher.run(&args).await?.refused(1, &["maintenance", "a new disk"])?;
        stack.provider.verb(&["maintenance", "off"]).await?;
        stack.publisher.run(&args).await?.json()?;

        // A new token signs everybody out.
        let old = token(stack, "admin.token")?;
        ensure!(page(stack, "/status.json", Some(&old)).await?.0 == 200);
        stack.provider.verb(&["admin", "--new"]).await?;
        ensure!(page(stack, "/status.json", Some(&old)).await?.0 == 401);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn metrics_are_for_who_has_their_token_and_are_those_of_the_dashboard() -> anyhow::Result<()>
{
    story(Setup::default(), async |stack| {
        let image = stack.image("metrics").await?;
        let pod = stack.probe("metrics", &image.name, "")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let metrics = token(stack, "metrics.token")?;
        ensure!(page(stack, "/metrics", None).await?.0 == 401);
        ensure!(
            page(stack, "/status.json", Some(&metrics)).await?.0 == 401,
            "it reads more than metrics"
        );
        let wanted = |text: &str| {
            let of = |name: &str| metric(text, &format!("roadstead_provider_{name}"));
            of("pods{state=\"running\"}") == Some(1.0)
                && of("collected_tokens").is_some_and(|tokens| tokens > 0.0)
                && of("stake_tokens{part=\"bonded\"}") == Some(500.0)
        };
        let text = until_within("something was collected", Duration::from_secs(90), async || {
            let (code, text) = page(stack, "/metrics", Some(&metrics)).await?;
            ensure!(code == 200, "{code}: {text}");
            Ok(wanted(&text).then_some(text))
        })
        .await?;
        let of = |name: &str| metric(&text, &format!("roadstead_provider_{name}"));
        ensure!(of("quotes_given_total").is_some_and(|count| count >= 1.0), "{text}");
        ensure!(of("starts_total{outcome=\"running\"}") == Some(1.0), "{text}");
        ensure!(of("start_seconds_count") == Some(1.0), "{text}");
        ensure!(of("mode{mode=\"open\"}") == Some(1.0), "{text}");
        ensure!(of("reconcile_passes_total").is_some_and(|count| count > 1.0), "{text}");
        ensure!(of("chain_lag_seconds").is_some_and(|lag| lag < 60.0), "{text}");

        stack.publisher.down(lease).await?;
        stack.nothing_is_left().await?;
        let status = stack.provider.verb(&["status"]).await?;
        let close = &status["here"]["closes"][0];
        ensure!(close["lease"] == lease && close["reason"] == "payer-done", "{status}");
        let days = status["here"]["days"].as_array().context("there are no days")?;
        let today = days.last().and_then(|day| day["amount"].as_str()).unwrap_or_default();
        ensure!(today.parse::<u128>()? > 0, "nothing was collected today: {days:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_machine_that_runs_short_takes_nothing_new_and_leaves_what_runs() -> anyhow::Result<()> {
    story(Setup::default(), async |stack| {
        let image = stack.image("short").await?;
        let mut pod = stack.probe("short", &image.name, "")?;
        let lease = stack.publisher.deploy(&pod).await?.lease;
        let site = stack.provider.site(&pod.host)?;
        let container = stack.container(lease).await?.id;
        let other = stack.probe("shorter", &image.name, "")?;
        let args = ["deploy", other.path(), "--yes", "--fund", "5"];
        let before = std::fs::read_to_string(stack.provider.config())?;
        for (limit, words) in [
            ("disk_free = \"1024Ti\"", "short of disk"),
            ("memory_free = \"1024Ti\"", "short of memory"),
            ("files_free = 1000000000000", "short of file descriptors"),
        ] {
            stack.provider.stop().await?;
            let short = before.replace("[limits]\n", &format!("[limits]\n{limit}\n"));
            ensure!(short != before, "the provider's file has no [limits]");
            std::fs::write(stack.provider.config(), short)?;
            stack.provider.start().await?;
            stack.publisher.run(&args).await?.refused(1, &[words])?;
            ensure!(site.get("/healthz").await.is_ok(), "{limit}: the pod does not answer");
            ensure!(stack.container(lease).await?.id == container, "{limit}: it was made anew");
        }
        stack.provider.stop().await?;
        std::fs::write(stack.provider.config(), before)?;
        // A mode that is set while it does not run holds when it does.
        stack.provider.verb(&["drain", "on"]).await?;
        stack.provider.start().await?;
        stack.publisher.run(&args).await?.refused(1, &["takes nothing new"])?;
        // Who has a lease may go on changing it.
        pod.change("0.25", "0.3")?;
        let id = lease.to_string();
        stack.publisher.run(&["update", &id, pod.path(), "--yes"]).await?.json()?;
        stack.provider.verb(&["drain", "off"]).await?;
        stack.publisher.run(&args).await?.json()?;
        Ok(())
    })
    .await
}

#[test]
fn every_metric_of_the_dashboard_exists() -> anyhow::Result<()> {
    let source =
        std::fs::read_to_string(tests::project().join("crates/provider/src/house/metrics.rs"))?;
    let file = tests::project().join("docs/grafana/provider.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let mut used = Vec::new();
    for panel in dashboard["panels"].as_array().context("there are no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().context("a target asks for nothing")?;
            let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            used.extend(
                words
                    .filter_map(|word| word.strip_prefix("roadstead_provider_"))
                    .map(str::to_owned),
            );
        }
    }
    ensure!(used.len() > 15, "only {used:?}");
    for name in used {
        let known = ["", "_total", "_bucket", "_count", "_sum"].iter().any(|suffix| {
            let name = name.strip_suffix(suffix);
            name.is_some_and(|name| source.contains(&format!("\"{name}\",")))
        });
        ensure!(known, "the dashboard asks for roadstead_provider_{name}, which there is not");
    }
    Ok(())
}
