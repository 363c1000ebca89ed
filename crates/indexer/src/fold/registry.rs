//! Registry: what providers say of themselves.

use alloy::primitives::Address;
use chain::abi::Registry::{RegistryEvents, Vouched};
use protocol::amount::Rate;
use store::{
    codec::text,
    event::Subject,
    price::{self, Price},
    provider::{self, Provider},
    vouch::{self, Vouch},
};

use super::{At, State, Why};

pub(super) fn want(state: &mut State, event: &RegistryEvents) {
    match event {
        RegistryEvents::Listed(e) => {
            state.provider.want(provider::Key { address: e.provider });
            state.price.want(price::Key { provider: e.provider, version: e.version });
        }
        RegistryEvents::Delisted(e) => state.provider.want(provider::Key { address: e.provider }),
        RegistryEvents::Heartbeat(e) => state.provider.want(provider::Key { address: e.provider }),
        RegistryEvents::Vouched(e) => state.vouch.want(vouch_key(e)),
    }
}

fn vouch_key(e: &Vouched) -> vouch::Key {
    vouch::Key { provider: e.provider, auditor: e.auditor, attribute: e.attribute }
}

pub(super) fn apply(state: &mut State, event: &RegistryEvents, at: At) -> Result<Subject, Why> {
    let of = |provider: Address| Subject { provider: Some(provider), ..Subject::default() };
    match event {
        RegistryEvents::Listed(e) => {
            let prices = &e.listing.prices;
            let (cpu, memory_mib, storage_mib) =
                (Rate(prices.cpu), Rate(prices.memoryMiB), Rate(prices.storageMiB));
            *state.provider.edit(provider::Key { address: e.provider })? = Some(Provider {
                address: e.provider,
                version: e.version,
                listed: true,
                seen_at: at.time,
                listed_at: at.time,
                endpoint: text(&e.listing.endpoint).into_owned(),
                region: text(&e.listing.region).into_owned(),
                cpu,
                memory_mib,
                storage_mib,
                tls_key: e.listing.tlsKey,
                seal_key: e.listing.sealKey,
                measurement: e.listing.measurement,
            });
            let key = price::Key { provider: e.provider, version: e.version };
            *state.price.edit(key)? = Some(Price {
                provider: e.provider,
                version: e.version,
                time: at.time,
                cpu,
                memory_mib,
                storage_mib,
            });
            Ok(of(e.provider))
        }
        RegistryEvents::Delisted(e) => {
            let provider = provider_of(state, e.provider)?;
            (provider.listed, provider.version) = (false, e.version);
            Ok(of(e.provider))
        }
        RegistryEvents::Heartbeat(e) => {
            provider_of(state, e.provider)?.seen_at = at.time;
            Ok(of(e.provider))
        }
        RegistryEvents::Vouched(e) => {
            *state.vouch.edit(vouch_key(e))? = Some(Vouch {
                provider: e.provider,
                auditor: e.auditor,
                attribute: e.attribute,
                expiry: e.expiry.to(),
            });
            Ok(of(e.provider))
        }
    }
}

fn provider_of(state: &mut State, address: Address) -> Result<&mut Provider, Why> {
    let provider = state.provider.edit(provider::Key { address })?;
    provider.as_mut().ok_or_else(|| Why::Missing(format!("provider {address}")))
}
