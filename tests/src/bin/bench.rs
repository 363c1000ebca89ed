//! `make bench`: how long it takes from an order to an answer, beside a plain `docker run` of the same image.
//!
//! It prints figures and judges nothing: they are the machine's, and what else it does meanwhile.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tests::{PodFile, Setup, Site, Stack, roadstead, story};
use tokio::process::Command;

/// How often each is measured; once more before that, for caches to be warm.
const RUNS: usize = 11;

/// How often is asked whether it answers.
const POLL: Duration = Duration::from_millis(5);

/// How long is asked at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is on the volume that is fetched, in MiB.
const VOLUME: u64 = 256;

/// What the guestbook's pod file limits it to: `docker run` gets the same.
const LIMITS: [&str; 4] = ["--cpus", "0.25", "--memory", "64m"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // So cheap that no collecting comes in between.
    story(Setup { price: "0.00001/h", ..Setup::default() }, async |stack| {
        let pod = stack.guestbook()?;
        let (mut orders, mut commands, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..=RUNS {
            let (order, command) = deploy(stack, &pod).await?;
            let docker = docker_run(stack).await?;
            eprintln!("run {run}: {order:.0?} from the order, {docker:.0?} with docker run");
            if run > 0 {
                orders.push(order);
                commands.push(command);
                plain.push(docker);
            }
        }
        let program = roadstead()?;
        let release = program.iter().any(|part| part == "release");
        let profile = if release { "release" } else { "dev" };
        println!("\n{RUNS} runs, image in Docker's cache, a block with each transaction; roadstead in its {profile} profile\n");
        println!("{:48} {:>8}  {:>15}", "", "median", "min - max");
        row("order (open is sent) -> 200 through the ingress", &mut orders);
        row("`docker run` -> 200", &mut plain);
        let over = median(&mut orders).as_secs_f64() - median(&mut plain).as_secs_f64();
        println!("{:48} {:>+5.0} ms", "overhead", over * 1e3);
        row("`roadstead deploy`, from start to end", &mut commands);
        operate(stack, &pod).await
    })
    .await
}

/// What it takes to run a program in a pod, and to fetch a volume, beside what Docker's own client does on the machine.
async fn operate(stack: &mut Stack, guestbook: &PodFile) -> anyhow::Result<()> {
    let lease = stack.publisher.deploy(guestbook).await?.lease.to_string();
    let id = stack.container(lease.parse()?).await?.id;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let began = Instant::now();
        let said = stack.publisher.run(&["exec", &lease, "--", "/app", "health"]).await?;
        let took = began.elapsed();
        ensure!(said.code == 0, "{said:?}");
        let began = Instant::now();
        docker(&["exec", &id, "/app", "health"]).await?;
        if run > 0 {
            ours.push(took);
            theirs.push(began.elapsed());
        }
    }
    println!();
    row("`roadstead exec` of a program that ends at once", &mut ours);
    row("`docker exec` of the same", &mut theirs);

    let image = stack.image("export").await?;
    let more =
        format!("    volumes: [data:/data]\nvolumes: {{ data: {{ x-size: {}M }} }}", VOLUME + 64);
    let pod = stack.probe("export", &image.name, &more)?;
    let lease = stack.publisher.deploy(&pod).await?.lease.to_string();
    let id = stack.container(lease.parse()?).await?.id;
    let (whole, source) = (stack.folder().join("whole.tar"), stack.folder().join("whole"));
    std::fs::write(&source, vec![7; usize::try_from(VOLUME << 20)?])?;
    let folder = stack.folder().display().to_string();
    let packed = whole.display().to_string();
    let tar = Command::new("tar").args(["-C", &folder, "-cf", &packed, "whole"]).status().await?;
    ensure!(tar.success(), "tar failed");
    stack.publisher.json(&["volume", "import", &lease, "data", &packed]).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let file = stack.folder().join("volume.tar");
    for run in 0..=3 {
        let _before = std::fs::remove_file(&file);
        let path = file.display().to_string();
        let began = Instant::now();
        stack.publisher.json(&["volume", "export", &lease, "data", &path]).await?;
        let took = began.elapsed();
        ensure!(file.metadata()?.len() > VOLUME << 20, "the volume is not whole");
        let began = Instant::now();
        let mut copied = Command::new("docker");
        copied.args(["cp", &format!("{id}:/data"), "-"]);
        let copied = copied.stdout(std::fs::File::create(&file)?).status().await?;
        ensure!(copied.success(), "docker cp failed");
        if run > 0 {
            ours.push(took);
            theirs.push(began.elapsed());
        }
    }
    row(&format!("`roadstead volume export` of {VOLUME} MiB"), &mut ours);
    row("`docker cp` of the same", &mut theirs);
    Ok(())
}

fn row(what: &str, times: &mut [Duration]) {
    let (middle, ms) = (median(times), |time: Duration| time.as_secs_f64() * 1e3);
    let (least, most) = (times.first().copied(), times.last().copied());
    let (least, most) = (ms(least.unwrap_or_default()), ms(most.unwrap_or_default()));
    println!("{what:48} {:>5.0} ms  {:>15}", ms(middle), format!("{least:.0} - {most:.0} ms"));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Waits until a site answers.
async fn answers(site: &Site) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while site.get("/healthz").await.is_err() {
        ensure!(Instant::now() < end, "it does not answer");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// From the order, and from the command, to the answer; then all of it is taken down again.
async fn deploy(stack: &Stack, pod: &PodFile) -> anyhow::Result<(Duration, Duration)> {
    let site = stack.provider.site(&pod.host)?;
    let began = Instant::now();
    let mut deploying = stack.publisher.start(&["deploy", pod.path(), "--yes", "--fund", "5"])?;
    let mut said = String::new();
    loop {
        let step =
            deploying.step().await?.with_context(|| format!("nothing was ordered: {said}"))?;
        if step.contains("opens the lease") {
            break;
        }
        said.push_str(&step);
    }
    let ordered = Instant::now();
    answers(&site).await?;
    let order = ordered.elapsed();
    let lease = deploying.deployed().await?.lease;
    let command = began.elapsed();
    stack.publisher.down(lease).await?;
    stack.nothing_is_left().await?;
    // A volume is kept past its lease, and one kept for each run would fill the provider.
    let id = lease.to_string();
    stack.publisher.json(&["volume", "rm", &id, "book"]).await?;
    Ok((order, command))
}

/// From the command to the answer; then the container is removed.
async fn docker_run(stack: &Stack) -> anyhow::Result<Duration> {
    let key = stack.folder().join("key");
    std::fs::write(&key, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")?;
    let began = Instant::now();
    let mount = format!("{}:/run/secrets/session_key:ro", key.display());
    let mut args = vec!["run", "--detach", "--volume", "/data", "--volume", &mount];
    args.extend(LIMITS);
    args.push("roadstead/guestbook");
    let id = docker(&args).await?;
    let settings = stack.docker.inspect(&id).await?.network_settings.unwrap_or_default();
    let networks = settings.networks.unwrap_or_default().into_values();
    let ip = networks.filter_map(|network| network.ip_address?.parse::<Ipv4Addr>().ok()).next();
    let address = SocketAddr::from((ip.context("the container has no address")?, 8080));
    let answered = answers(&Site::new(address, "guestbook.localhost")?).await;
    let elapsed = began.elapsed();
    docker(&["rm", "--force", "--volumes", &id]).await?;
    answered?;
    Ok(elapsed)
}

async fn docker(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(args).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {} failed: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
