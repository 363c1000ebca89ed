//! `roadstead vouch`: an auditor, or a provider for itself, says what a provider has.

use alloy::primitives::{Address, aliases::U40};
use anyhow::{Context as _, ensure};
use chain::abi::Registry;
use protocol::criteria::attribute;

use crate::{
    output::{self, moment},
    progress::OnStderr,
    publish::session,
    remote::Until,
    settings::Settings,
};

/// What is vouched for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider that has it
    provider: Address,
    /// The attribute's name, as in `gdpr`; or its hash
    attribute: String,
    /// Until when: in 30d, or at 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", default_value = "365d", conflicts_with = "revoke")]
    until: Until,
    /// Vouch for it no longer
    #[arg(long)]
    revoke: bool,
}

/// Does what was asked.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let registry = session.chain().deployment().registry;
    let (provider, attribute) = (args.provider, attribute(&args.attribute));
    let now = session.chain().head().await?.timestamp;
    let expiry = if args.revoke { 0 } else { args.until.unix(now)? };
    ensure!(args.revoke || expiry > now, "--until: that is {}", moment(expiry, now));
    let fits = U40::try_from(expiry).ok();
    let expiry = fits.with_context(|| format!("--until: {expiry} is beyond the end of time"))?;
    let call = Registry::vouchCall { provider, attribute, expiry };
    let what = match args.revoke {
        true => "takes the word back",
        false => "vouches for the provider",
    };
    session.send(registry, &call, what, &OnStderr::new()).await?;
    let value = serde_json::json!({
        "provider": provider,
        "auditor": session.wallet(),
        "attribute": attribute,
        "until": expiry.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        let (who, name) = (session.wallet(), &args.attribute);
        match args.revoke {
            true => format!("{who} vouches no longer that {provider} has {name}"),
            false => format!(
                "{who} vouches that {provider} has {name} ({attribute}); that ends {}",
                moment(expiry.to(), now)
            ),
        }
    })
}
