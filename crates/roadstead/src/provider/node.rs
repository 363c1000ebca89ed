//! The machines of a cluster.

use std::net::Ipv4Addr;

use ::provider::config::Node;
use anyhow::ensure;
use clap::Subcommand;

use super::{
    Config,
    file::{docker_host, place},
};
use crate::{output, settings::Settings};

/// What to do with the machines of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the machines: whether they are given work, what runs there, and whether they answer
    #[command(after_help = "Example:\n  roadstead provider node ls")]
    Ls {
        #[command(flatten)]
        config: Config,
    },
    /// Have everything that runs on a machine run elsewhere, and give it nothing new. What has a volume waits for it
    #[command(after_help = "Example:\n  roadstead provider node drain beta")]
    Drain {
        /// The machine's name
        name: String,
        #[command(flatten)]
        config: Config,
    },
    /// Give a machine work again; what runs elsewhere stays there
    #[command(after_help = "Example:\n  roadstead provider node activate beta")]
    Activate {
        /// The machine's name
        name: String,
        #[command(flatten)]
        config: Config,
    },
    /// Keep what a swarm runs on this machine away from the machine, private networks and the swarm's machines, and what it
    /// publishes for the provider alone. As root, on each machine after each boot; `run` does it on the provider's own
    #[command(
        after_help = "Example:\n  roadstead provider node fence --provider 10.0.0.1 --peer 10.0.0.1 --peer 10.0.0.2"
    )]
    Fence {
        /// The address from which the provider comes
        #[arg(long, value_name = "ADDRESS")]
        provider: Ipv4Addr,
        /// The address of a machine of the swarm; once for each
        #[arg(long = "peer", value_name = "ADDRESS", required = true)]
        peers: Vec<Ipv4Addr>,
    },
}

/// Does what was asked.
pub(crate) async fn run(verb: &Verb, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        Verb::Ls { config } => list(&nodes(config)?, settings).await,
        Verb::Drain { name, config } => set(&nodes(config)?, name, true, settings).await,
        Verb::Activate { name, config } => set(&nodes(config)?, name, false, settings).await,
        Verb::Fence { provider, peers } => {
            ::provider::fence(Some(*provider), peers).await?;
            output::show(settings.json, &serde_json::json!({ "provider": provider }), || {
                format!("what the swarm publishes on this machine is for {provider} alone")
            })
        }
    }
}

fn nodes(config: &Config) -> anyhow::Result<Vec<Node>> {
    let nodes = place(&config.config)?.nodes;
    let name = config.config.display();
    ensure!(!nodes.is_empty(), "{name} names no machines; a cluster has a [[node]] for each");
    Ok(nodes)
}

async fn list(nodes: &[Node], settings: &Settings) -> anyhow::Result<()> {
    let nodes = ::provider::nodes(docker_host().as_deref(), nodes).await?;
    output::show(settings.json, &nodes, || {
        let rows = nodes.iter().map(|node| {
            let (state, answers) = (&node.state, if node.reachable { "yes" } else { "no" });
            vec![
                output::tame(&node.name),
                node.address.to_string(),
                node.availability.clone(),
                state.clone(),
                node.containers.to_string(),
                answers.to_owned(),
            ]
        });
        output::table(&["NODE", "ADDRESS", "WORK", "STATE", "CONTAINERS", "ANSWERS"], rows)
    })
}

async fn set(nodes: &[Node], name: &str, drain: bool, settings: &Settings) -> anyhow::Result<()> {
    ::provider::set_drained(docker_host().as_deref(), nodes, name, drain).await?;
    let value = serde_json::json!({ "node": name, "drained": drain });
    output::show(settings.json, &value, || match drain {
        true => format!("{name} is drained: what runs there is run elsewhere"),
        false => format!("{name} is given work again"),
    })
}
