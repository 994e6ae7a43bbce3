//! What happens in one run, drawn from its seed before anything starts: who there is, what clients ask, what goes wrong.
//!
//! It knows neither a network nor the product. Everything that is random in a run comes from here, or from generators
//! that are seeded here.

use std::time::Duration;

use router_common::testing::Random;

/// Names of services; each has endpoints under its own name.
pub(crate) const SERVICES: [&str; 2] = ["alpha", "beta"];
/// Versions that an instance may have.
pub(crate) const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// Regions; gateways are in the first one.
pub(crate) const REGIONS: [&str; 2] = ["north", "south"];

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) gateways: usize,
    pub(crate) instances: Vec<Instance>,
    /// Hosts on which clients are; a fault strikes a whole host.
    pub(crate) client_hosts: usize,
    pub(crate) clients: Vec<Client>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// When the last fault is over and everything is repaired.
    pub(crate) length: Duration,
    pub(crate) limits: Limits,
    /// A message's least and longest way, where no fault says otherwise.
    pub(crate) latency: (Duration, Duration),
}

/// One instance of a service.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) service: usize,
    pub(crate) version: usize,
    pub(crate) region: usize,
    pub(crate) lease: u32,
    pub(crate) links: u16,
    /// A second process of the same identity, which does not run until it supersedes this one.
    pub(crate) double_of: Option<usize>,
}

/// The bounds of the gateways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) call_bytes: u64,
    pub(crate) connection_bytes: u64,
    pub(crate) node_bytes: u64,
    pub(crate) waiting: usize,
}

/// What is spoken with a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// One client: it asks one gateway, one request after another, or on HTTP/2 several at once.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) host: usize,
    pub(crate) gateway: usize,
    pub(crate) protocol: Protocol,
    pub(crate) asks: Vec<Ask>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Its name everywhere: no two requests of a run have the same.
    pub(crate) tag: u64,
    /// After the one before, or after its end on HTTP/1.1.
    pub(crate) pause: Duration,
    pub(crate) what: What,
    pub(crate) service: usize,
    pub(crate) version: Option<usize>,
    /// Bytes of the request's body, where it has one.
    pub(crate) sends: usize,
    /// Bytes of the response's body, where the request says.
    pub(crate) wants: usize,
    /// How long the handler works.
    pub(crate) work: Duration,
    pub(crate) deadline: Option<Duration>,
    /// The client goes away so long after it has asked.
    pub(crate) leaves: Option<Duration>,
    /// Between two pieces of the body that the client sends, or reads.
    pub(crate) slow: Option<Duration>,
}

impl Ask {
    /// Whether its answer may be more than the network holds for a reader.
    pub(crate) fn is_large(&self) -> bool {
        self.wants.max(self.sends) > 512 * 1024
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Not idempotent: at most one run.
    Once,
    /// Idempotent: at most two.
    Again,
    /// A response of so many bytes.
    Bytes,
    /// Its head alone.
    Head,
    /// The body comes back while it goes.
    Echo,
    /// Answered on admission.
    OneWay,
    /// Nobody ever answers.
    Never,
    /// The handler runs on when nobody waits any more.
    Detached,
    /// The handler panics.
    Panic,
    /// The handler cuts its answer.
    Cut,
    /// There is no such path.
    Missing,
    /// There is no such version.
    NoVersion,
}

impl What {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Once,
        Self::Again,
        Self::Bytes,
        Self::Head,
        Self::Echo,
        Self::OneWay,
        Self::Never,
        Self::Detached,
        Self::Panic,
        Self::Cut,
        Self::Missing,
        Self::NoVersion,
    ];

    /// The word in paths.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Once | Self::NoVersion => "once",
            Self::Again => "again",
            Self::Bytes | Self::Head => "bytes",
            Self::Echo => "echo",
            Self::OneWay => "one-way",
            Self::Never => "never",
            Self::Detached => "detached",
            Self::Panic => "panic",
            Self::Cut => "cut",
            Self::Missing => "missing",
        }
    }
}

/// Somebody on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Gateway(usize),
    Instance(usize),
    Clients(usize),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gateway(number) => write!(f, "gateway-{number}"),
            Self::Instance(number) => write!(f, "instance-{number}"),
            Self::Clients(number) => write!(f, "clients-{number}"),
        }
    }
}

/// What goes wrong, or is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between two hosts, and what is on its way is lost.
    Partition(Host, Host),
    Repair(Host, Host),
    /// What is sent is kept until it is let go.
    Hold(Host, Host),
    Release(Host, Host),
    /// Messages take up to so long.
    Delay(Host, Host, Duration),
    /// All links between two hosts are reset.
    Reset(Host, Host),
    /// A process ends at once.
    Crash(Host),
    /// And comes back.
    Restart(Host),
    /// A process is told to stop, and drains.
    Stop(Host),
    /// An instance says that it is unhealthy, degraded, healthy.
    Unhealthy(usize),
    Degraded(usize),
    Healthy(usize),
    /// A second process of the same identity starts.
    Supersede {
        old: usize,
        new: usize,
    },
}

impl Fault {
    /// Its kind, for counting; `None` for what only mends.
    pub(crate) const fn kind(self) -> Option<&'static str> {
        Some(match self {
            Self::Partition(..) => "partition",
            Self::Hold(..) => "hold",
            Self::Delay(..) => "delay",
            Self::Reset(..) => "reset",
            Self::Crash(Host::Gateway(_)) => "gateway crash",
            Self::Crash(_) => "instance crash",
            Self::Stop(Host::Gateway(_)) => "gateway shutdown",
            Self::Stop(_) => "instance shutdown",
            Self::Unhealthy(_) | Self::Degraded(_) => "health",
            Self::Supersede { .. } => "supersede",
            Self::Repair(..) | Self::Release(..) | Self::Restart(_) | Self::Healthy(_) => return None,
        })
    }

    /// Whether it can hurt what passes between these two.
    fn touches(self, client: Host, gateway: Host) -> bool {
        match self {
            Self::Partition(a, b) | Self::Hold(a, b) | Self::Reset(a, b) => {
                (a, b) == (client, gateway) || (b, a) == (client, gateway)
            }
            Self::Crash(host) | Self::Stop(host) => host == gateway || host == client,
            _ => false,
        }
    }
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common.
        let mut random = Random::new(Random::new(seed).number());
        let random = &mut random;
        let gateways = 1 + usize::from(random.chance(40));
        let services = 1 + random.below(SERVICES.len());
        let mut instances = draw_instances(random, services);
        let client_hosts = 1 + usize::from(random.chance(50));
        let length = Duration::from_millis(8_000 + random.below(12_000) as u64);
        let limits = if random.chance(25) {
            Limits { call_bytes: 200_000, connection_bytes: 300_000, node_bytes: 500_000, waiting: 3 }
        } else {
            Limits { call_bytes: 1 << 24, connection_bytes: 1 << 26, node_bytes: 1 << 30, waiting: 1024 }
        };
        let least = Duration::from_millis(random.below(3) as u64);
        let latency = (least, least + Duration::from_millis([2, 10, 60, 250][random.below(4)]));
        let mut tags = 1 + (seed << 20);
        let clients = (0..2 + random.below(5))
            .map(|_| draw_client(random, services, (gateways, client_hosts), length, &mut tags))
            .collect();
        let faults = if random.chance(10) {
            Vec::new()
        } else {
            draw_faults(random, gateways, client_hosts, &mut instances, length)
        };
        Self { gateways, instances, client_hosts, clients, faults, length, limits, latency }
    }

    /// Whether nothing can have hurt what passes between a client's host and a gateway.
    pub(crate) fn is_clean(&self, clients: usize, gateway: usize) -> bool {
        let (clients, gateway) = (Host::Clients(clients), Host::Gateway(gateway));
        !self.faults.iter().any(|(_, fault)| fault.touches(clients, gateway))
    }

    /// Whether nothing goes wrong at all.
    pub(crate) fn is_calm(&self) -> bool {
        self.faults.is_empty()
    }
}

fn draw_instances(random: &mut Random, services: usize) -> Vec<Instance> {
    let versions = 1 + usize::from(random.chance(30));
    let count = services.max(versions) + random.below(3);
    (0..count)
        .map(|number| Instance {
            service: number % services,
            version: if number < services { 0 } else { random.below(versions) },
            region: usize::from(random.chance(25)),
            lease: if random.chance(35) { 2 + random.below(4) as u32 } else { 1024 },
            links: 1 + random.below(2) as u16,
            double_of: None,
        })
        .collect()
}

fn draw_client(
    random: &mut Random,
    services: usize,
    (gateways, hosts): (usize, usize),
    length: Duration,
    tags: &mut u64,
) -> Client {
    let protocol = if random.chance(50) { Protocol::Http1 } else { Protocol::Http2 };
    let count = 4 + random.below(22);
    let longest_pause = 2 * length.as_millis() as usize / count;
    let asks = (0..count)
        .map(|_| {
            *tags += 1;
            draw_ask(random, services, *tags, longest_pause)
        })
        .collect();
    Client { host: random.below(hosts), gateway: random.below(gateways), protocol, asks }
}

fn draw_ask(random: &mut Random, services: usize, tag: u64, longest_pause: usize) -> Ask {
    let what = match random.below(100) {
        0..24 => What::Once,
        24..42 => What::Again,
        42..56 => What::Bytes,
        56..60 => What::Head,
        60..76 => What::Echo,
        76..82 => What::OneWay,
        82..85 => What::Never,
        85..89 => What::Detached,
        89..91 => What::Panic,
        91..94 => What::Cut,
        94..97 => What::Missing,
        _ => What::NoVersion,
    };
    let size = |random: &mut Random| match random.below(10) {
        0..4 => random.below(200),
        4..7 => random.below(20_000),
        7..9 => random.below(150_000),
        _ => random.below(1_500_000),
    };
    let milliseconds = |random: &mut Random, most: usize| Duration::from_millis(random.below(most) as u64);
    Ask {
        tag,
        pause: milliseconds(random, longest_pause.max(1)),
        what,
        service: if random.chance(5) { random.below(SERVICES.len()) } else { random.below(services) },
        version: random.chance(20).then(|| random.below(VERSIONS.len())),
        sends: size(random),
        wants: size(random),
        work: if random.chance(50) { milliseconds(random, 800) } else { Duration::ZERO },
        deadline: random.chance(20).then(|| milliseconds(random, 3_000).max(Duration::from_millis(1))),
        leaves: random.chance(12).then(|| milliseconds(random, 1_500)),
        slow: random.chance(15).then(|| milliseconds(random, 300)),
    }
}

fn draw_faults(
    random: &mut Random,
    gateways: usize,
    client_hosts: usize,
    instances: &mut Vec<Instance>,
    length: Duration,
) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    let moment = |random: &mut Random| Duration::from_millis(500 + random.below(length.as_millis() as usize) as u64);
    let real = instances.len();
    // One thing goes wrong with a pair or a process at a time, so that what mends one does not mend another.
    let mut pairs: Vec<(Host, Host)> = Vec::new();
    let mut processes: Vec<Host> = Vec::new();
    for _ in 0..1 + random.below(7) {
        let gateway = Host::Gateway(random.below(gateways));
        let instance = random.below(real);
        let other =
            if random.chance(20) { Host::Clients(random.below(client_hosts)) } else { Host::Instance(instance) };
        let from = moment(random);
        let to = from + Duration::from_millis(20 + random.below(12_000) as u64);
        match random.below(10) {
            0..4 if !pairs.contains(&(gateway, other)) => {
                pairs.push((gateway, other));
                match random.below(4) {
                    0 => {
                        faults.push((from, Fault::Partition(gateway, other)));
                        faults.push((to, Fault::Repair(gateway, other)));
                    }
                    1 => {
                        faults.push((from, Fault::Hold(gateway, other)));
                        faults.push((to, Fault::Release(gateway, other)));
                    }
                    2 => {
                        let most = Duration::from_millis(10 + random.below(1_500) as u64);
                        faults.push((from, Fault::Delay(gateway, other, most)));
                    }
                    _ => {
                        for _ in 0..1 + random.below(3) {
                            faults.push((moment(random), Fault::Reset(gateway, other)));
                        }
                    }
                }
            }
            4..8 if !processes.contains(&Host::Instance(instance)) => {
                let host = Host::Instance(instance);
                processes.push(host);
                match random.below(6) {
                    0 | 1 => {
                        faults.push((from, Fault::Crash(host)));
                        faults.push((to, Fault::Restart(host)));
                    }
                    2 | 3 => {
                        faults.push((from, Fault::Stop(host)));
                        faults.push((to.max(from + Duration::from_secs(1)), Fault::Restart(host)));
                    }
                    4 => {
                        let sick =
                            if random.chance(50) { Fault::Unhealthy(instance) } else { Fault::Degraded(instance) };
                        faults.push((from, sick));
                        faults.push((to, Fault::Healthy(instance)));
                    }
                    // Two gateways need not agree on which of two processes is the later one: while one of them is away, each can
                    // prefer another, and then both end. One decides alone.
                    _ if gateways > 1 => {
                        faults.push((from, Fault::Unhealthy(instance)));
                        faults.push((to, Fault::Healthy(instance)));
                    }
                    _ => {
                        let new = instances.len();
                        instances.push(Instance { double_of: Some(instance), ..instances[instance].clone() });
                        faults.push((from, Fault::Supersede { old: instance, new }));
                    }
                }
            }
            8 if !processes.contains(&gateway) => {
                processes.push(gateway);
                let end = if random.chance(50) { Fault::Crash(gateway) } else { Fault::Stop(gateway) };
                faults.push((from, end));
                faults.push((to.max(from + Duration::from_secs(1)), Fault::Restart(gateway)));
            }
            _ => {}
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// `length` bytes that belong to a request and to no other; `from` is where in them one is.
pub(crate) fn pattern(tag: u64, from: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let skipped = from % 8;
    let mut word = from / 8;
    while bytes.len() < length + skipped {
        let mixed = (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
        word += 1;
    }
    bytes.drain(..skipped);
    bytes.truncate(length);
    bytes
}

/// Whether these are a request's bytes from `from` on.
pub(crate) fn is_pattern(tag: u64, from: usize, bytes: &[u8]) -> bool {
    bytes == pattern(tag, from, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_from_wherever_it_is_read() {
        let whole = pattern(7, 0, 1000);
        for (from, length) in [(0, 1000), (1, 10), (8, 8), (13, 500), (999, 1)] {
            assert!(is_pattern(7, from, &whole[from..from + length]), "{from} {length}");
        }
        assert!(!is_pattern(8, 0, &whole));
        assert!(!is_pattern(7, 1, &whole));
    }

    #[test]
    fn a_seed_gives_one_plan_and_seeds_give_others() {
        let text = |seed| format!("{:?}", Plan::draw(seed));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn plans_draw_every_request_and_every_fault() {
        let mut asked = std::collections::BTreeSet::new();
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            asked.extend(plan.clients.iter().flat_map(|client| &client.asks).map(|ask| ask.what));
            kinds.extend(plan.faults.iter().filter_map(|(_, fault)| fault.kind()));
        }
        assert_eq!(asked.len(), What::ALL.len());
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
}
