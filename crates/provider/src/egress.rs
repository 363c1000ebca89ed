//! How fast and how much each lease sends to the world.
//!
//! A pod sends what it likes: a provider pays for that, and shares its line among all. What leaves the bridges of a lease
//! may be so many bits per second, answers to visitors included (iptables' `hashlimit`, one bucket per lease). What
//! is forwarded to the world is counted, and dropped once it is as much as a lease may send in 30 days (`quota`); visitors
//! are answered all the same, as they come in through the provider itself. Both hold while the provider does not run.
//!
//! How much was sent is written down beside the lease's record. Where that is lost, the count begins anew; where the machine
//! is switched off, and with it the rules are gone, at most what was sent since the last look is not counted.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    pod::Egress as Wish,
    resources::{BitRate, Bytes},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::EgressLimits,
    firewall::{ANSWERS, EGRESS, FirewallError, iptables, lock, restore},
    house,
    leases::PodKey,
    records::Records,
    wire::EgressStatus,
};

/// What a lease may send is so much in this time, in seconds.
const PERIOD: u64 = 30 * 86_400;

/// What may be sent at once at least, in bytes: packets come in bundles of 64 KiB.
const LEAST_BURST: u64 = 128 << 10;

/// What a lease asks for beyond what is given here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMuch {
    #[error("x-roadstead.egress.rate: {wanted} is asked for, and {most} is the most here")]
    Rate { wanted: BitRate, most: BitRate },
    #[error(
        "x-roadstead.egress.total: {wanted} is asked for, and {most} in 30 days is the most here"
    )]
    Total { wanted: Bytes, most: Bytes },
}

/// What a lease may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    rate: BitRate,
    total: Bytes,
}

impl Allowance {
    /// What a pod with such wishes has; what it leaves out is what everybody has.
    fn of(limits: EgressLimits, wish: Wish) -> Self {
        Self {
            rate: wish.rate.unwrap_or(limits.rate),
            total: wish.total.unwrap_or(limits.included),
        }
    }
}

/// What a pod with such wishes may send, if it may have that.
pub(crate) fn allowed(limits: EgressLimits, wish: Wish) -> Result<Allowance, TooMuch> {
    let allowance = Allowance::of(limits, wish);
    if allowance.rate > limits.rate {
        return Err(TooMuch::Rate { wanted: allowance.rate, most: limits.rate });
    }
    if allowance.total > limits.most {
        return Err(TooMuch::Total { wanted: allowance.total, most: limits.most });
    }
    Ok(allowance)
}

/// What a lease has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// When the 30 days began, in Unix seconds.
    since: u64,
    /// How much it was in them before the rule that counts now was made.
    before: u64,
    /// What that rule has counted.
    counted: u64,
    /// How much it may be.
    total: u64,
    /// How fast, in bits per second.
    rate: u64,
}

impl Sent {
    fn all(self) -> u64 {
        self.before.saturating_add(self.counted)
    }

    fn left(self) -> u64 {
        self.total.saturating_sub(self.all())
    }

    /// As the rule counts now, if it is there; from the beginning if its 30 days are over.
    fn seen(self, counted: Option<u64>, now: u64) -> Self {
        let seen = match counted {
            // The machine was restarted, or somebody cleared its tables: what is known to have been sent was sent.
            None => self,
            Some(counted) if counted < self.counted => Self { before: self.all(), counted, ..self },
            Some(counted) => Self { counted, ..self },
        };
        match now.saturating_sub(self.since) >= PERIOD {
            true => Self { since: now, before: 0, counted: 0, ..seen },
            false => seen,
        }
    }

    /// With a rule that begins to count.
    fn anew(self) -> Self {
        Self { before: self.all(), counted: 0, ..self }
    }

    fn within(self, allowance: Allowance) -> Self {
        let Allowance { rate, total } = allowance;
        Self { total: total.0, rate: rate.0, ..self }
    }
}

/// What leases send.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    limits: EgressLimits,
    records: Arc<Records>,
    sent: Arc<Mutex<HashMap<PodKey, Sent>>>,
}

impl Egress {
    pub(crate) fn new(limits: EgressLimits, records: Arc<Records>) -> Self {
        Self { limits, records, sent: Arc::default() }
    }

    /// What a pod with such wishes may send here.
    pub(crate) fn allowed(&self, wish: Wish) -> Result<Allowance, TooMuch> {
        allowed(self.limits, wish)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, key: PodKey) -> Sent {
        let known = self.lock().get(&key).copied();
        known.unwrap_or_else(|| {
            let read = std::fs::read(self.records.egress(key)).ok();
            let read = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            read.unwrap_or(Sent { since: house::now(), ..Sent::default() })
        })
    }

    fn keep(&self, key: PodKey, sent: Sent) {
        if self.lock().insert(key, sent) == Some(sent) {
            return;
        }
        let path = self.records.egress(key);
        // Without its folder its record is gone, too.
        if path.parent().is_some_and(Path::is_dir) {
            let text = serde_json::to_vec(&sent).unwrap_or_default();
            if let Err(err) = house::write(&path, &text) {
                tracing::warn!(lease.id = key.lease, error = %err, "what lease {} sent is not kept", key.lease);
            }
        }
    }

    /// Has the lease's bridges send no more than it may: before anything on them is started.
    pub(crate) async fn limit(
        &self,
        key: PodKey,
        wish: Wish,
        bridges: &[String],
    ) -> Result<(), FirewallError> {
        // What was agreed to stays so where the provider has other limits since.
        let allowance = Allowance::of(self.limits, wish);
        let _alone = lock().await?;
        let chain = chain(key);
        let present = iptables(&["-S"]).await?;
        let has = |rule: &str| present.lines().any(|line| line == rule);
        let counted = counted(&iptables(&["-v", "-S"]).await?, &chain);
        let sent = self.load(key).seen(counted, house::now()).anew().within(allowance);
        fill(key, sent).await?;
        self.keep(key, sent);
        for bridge in bridges {
            for rule in jumps(key, bridge).iter().filter(|rule| !has(rule)) {
                iptables(&rule.split(' ').collect::<Vec<_>>()).await?;
            }
        }
        Ok(())
    }

    /// Reads what leases have sent, writes it down, and begins anew with those whose 30 days are over.
    pub(crate) async fn look(&self, leases: &[PodKey]) -> Result<(), FirewallError> {
        if leases.is_empty() {
            return Ok(());
        }
        let _alone = lock().await?;
        let present = iptables(&["-v", "-S"]).await?;
        for key in leases.iter().copied() {
            // Not of a pod that an older provider started.
            let Some(counted) = counted(&present, &chain(key)) else { continue };
            let before = self.load(key);
            let mut sent = before.seen(Some(counted), house::now());
            // Another rule may be there than was made here, and let more pass.
            if sent.since != before.since || counted < before.counted {
                sent = sent.anew();
                fill(key, sent).await?;
            }
            self.keep(key, sent);
        }
        Ok(())
    }

    /// What a lease has sent, as far as it was looked at.
    pub(crate) fn of(&self, key: PodKey) -> Option<EgressStatus> {
        let sent = self.lock().get(&key).copied()?;
        let until = sent.since.saturating_add(PERIOD);
        Some(EgressStatus { sent: sent.all(), total: sent.total, until })
    }

    /// Takes the rule of one bridge away, which is gone.
    pub(crate) async fn release(&self, key: PodKey, bridge: &str) -> Result<(), FirewallError> {
        let _alone = lock().await?;
        let rules = jumps(key, bridge);
        drop_rules(|line| rules.iter().any(|rule| rule == line)).await
    }

    /// Takes everything of a lease away.
    pub(crate) async fn forget(&self, key: PodKey) -> Result<(), FirewallError> {
        let _alone = lock().await?;
        let chains = [chain(key), answers(key)];
        drop_rules(|line| chains.iter().any(|chain| line.ends_with(&format!(" -j {chain}"))))
            .await?;
        let present = iptables(&["-S"]).await?;
        for chain in &chains {
            if present.lines().any(|line| line == format!("-N {chain}")) {
                iptables(&["-F", chain]).await?;
                iptables(&["-X", chain]).await?;
            }
        }
        self.lock().remove(&key);
        Ok(())
    }
}

/// The chain that counts what a lease sends.
fn chain(key: PodKey) -> String {
    format!("RSE-{}", key.short())
}

/// The chain that bounds its answers to visitors.
fn answers(key: PodKey) -> String {
    format!("RSA-{}", key.short())
}

/// What sends a bridge's packets through the chains.
fn jumps(key: PodKey, bridge: &str) -> [String; 2] {
    [
        format!("-A {EGRESS} -i {bridge} -j {}", chain(key)),
        format!("-A {ANSWERS} -i {bridge} -j {}", answers(key)),
    ]
}

async fn drop_rules(which: impl Fn(&str) -> bool) -> Result<(), FirewallError> {
    let present = iptables(&["-S"]).await?;
    for rule in present.lines().filter(|line| which(line)) {
        iptables(&rule.replacen("-A", "-D", 1).split(' ').collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The rules of a lease that has sent so much.
fn rules(key: PodKey, sent: Sent) -> String {
    let (chain, answers, bytes) = (chain(key), answers(key), sent.rate / 8);
    // The kernel wants a second's worth at least, by its own reckoning.
    let burst = (bytes + bytes / 8).max(LEAST_BURST);
    // A bucket keeps its rate as long as its name is in use.
    let name = format!("{}-{}", key.short(), sent.rate);
    let limit = format!(
        "-m hashlimit --hashlimit-above {bytes}b/s --hashlimit-burst {burst}b --hashlimit-name {name} -j DROP"
    );
    format!(
        "*filter\n:{chain} - [0:0]\n:{answers} - [0:0]\n-A {answers} {limit}\n-A {chain} {limit}\n\
         -A {chain} -m quota --quota {} -j RETURN\n-A {chain} -j DROP\nCOMMIT\n",
        sent.left()
    )
}

/// Makes a lease's chains, or makes them anew, at once.
async fn fill(key: PodKey, sent: Sent) -> Result<(), FirewallError> {
    restore(rules(key, sent), &format!("lease {}", key.lease)).await
}

/// What a chain let pass, as `iptables -v -S` has it.
fn counted(listed: &str, chain: &str) -> Option<u64> {
    let quota = format!("-A {chain} -m quota ");
    let line = listed.lines().find(|line| line.starts_with(&quota))?;
    line.split_once(" -c ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: EgressLimits =
        EgressLimits { rate: BitRate(1_000), included: Bytes(500), most: Bytes(800) };

    #[test]
    fn a_pod_gets_what_it_asks_for_within_the_limits() {
        let check = |rate: Option<u64>, total: Option<u64>, wanted: Option<(u64, u64)>| {
            let wish = Wish { rate: rate.map(BitRate), total: total.map(Bytes) };
            let got = allowed(LIMITS, wish).ok().map(|got| (got.rate.0, got.total.0));
            assert_eq!(got, wanted, "{wish:?}");
        };
        check(None, None, Some((1_000, 500)));
        check(Some(10), Some(20), Some((10, 20)));
        check(Some(1_000), Some(500), Some((1_000, 500)));
        check(Some(1_001), None, None);
        check(None, Some(501), Some((1_000, 501)));
        check(None, Some(800), Some((1_000, 800)));
        check(None, Some(801), None);
    }

    #[test]
    fn what_was_sent_is_counted_over_rules_and_for_thirty_days() {
        let of = |total| Allowance { rate: LIMITS.rate, total: Bytes(total) };
        let new = Sent { since: 100, ..Sent::default() }.within(of(500));
        let seen = new.seen(Some(120), 200);
        assert_eq!((seen.all(), seen.left()), (120, 380));
        // The rule is made anew.
        let again = seen.anew().seen(Some(30), 300);
        assert_eq!((again.all(), again.left()), (150, 350));
        assert_eq!(again.anew().within(of(100)).left(), 0, "less may be sent than was");
        let over = again.seen(Some(40), 100 + PERIOD);
        assert_eq!((over.since, over.left()), (100 + PERIOD, 500));
        assert_eq!(again.seen(Some(40), 99 + PERIOD).all(), 160);
    }

    #[test]
    fn what_was_sent_before_a_restart_of_the_machine_was_sent() {
        let seen = Sent { since: 100, before: 5, total: 500, ..Sent::default() };
        let seen = seen.seen(Some(120), 200);
        // The rule is not there.
        let without = seen.seen(None, 300).anew();
        assert_eq!((without.all(), without.left()), (125, 375));
        assert_eq!(without.seen(None, 300).all(), 125);
        assert_eq!(seen.seen(None, 100 + PERIOD).all(), 0);
        // Somebody else's has its place.
        let less = seen.seen(Some(20), 300);
        assert_eq!((less.all(), less.left()), (145, 355));
        assert_eq!(less.anew().seen(Some(7), 400).all(), 152);
    }

    #[test]
    fn what_passed_is_read() {
        let listed = "-N RSE-ab\n-A RSE-ab -m hashlimit --hashlimit-above 1b/s -c 9 99 -j DROP\n\
                      -A RSE-ab -m quota --quota 500 -c 12 3456 -j RETURN\n-A RSE-ab -c 1 2 -j DROP\n";
        assert_eq!(counted(listed, "RSE-ab"), Some(3_456));
        assert_eq!(counted(listed, "RSE-cd"), None);
    }

    #[test]
    fn a_lease_has_one_bucket_and_one_count() {
        let key = PodKey { lease: 7, opening: alloy::primitives::B256::repeat_byte(0xab) };
        let sent = Sent { before: 1, counted: 2, total: 10, rate: 8_000_000, ..Sent::default() };
        let limit = "-m hashlimit --hashlimit-above 1000000b/s --hashlimit-burst 1125000b \
                     --hashlimit-name abababababab-8000000 -j DROP";
        let wanted = [
            "*filter",
            ":RSE-abababababab - [0:0]",
            ":RSA-abababababab - [0:0]",
            &format!("-A RSA-abababababab {limit}"),
            &format!("-A RSE-abababababab {limit}"),
            "-A RSE-abababababab -m quota --quota 7 -j RETURN",
            "-A RSE-abababababab -j DROP",
            "COMMIT",
        ];
        assert_eq!(rules(key, sent).lines().collect::<Vec<_>>(), wanted);
        let slow = rules(key, Sent { rate: 64_000, ..sent });
        assert!(slow.contains("--hashlimit-above 8000b/s --hashlimit-burst 131072b"), "{slow}");
    }
}
