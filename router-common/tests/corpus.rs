//! The fuzz targets' bodies in ordinary tests: the stored corpora replayed, and seeded cases of the same shape.
//!
//! `STELLA_BLESS=1` writes the corpora anew. `STELLA_FUZZ_SEEDS=100000` plays more seeds; a case that fails prints its
//! bytes, which can be stored under `fuzz/corpus/` to be replayed for ever.

use std::fs;
use std::path::{Path, PathBuf};

use router_common::testing::Random;
use router_common::testing::fuzz::{fuzz_decoder, fuzz_session};

/// Cases of each kind that are played without being stored.
const SEEDS: u64 = 3000;

#[path = "support/vectors.rs"]
mod vectors;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn blessing() -> bool {
    std::env::var_os("STELLA_BLESS").is_some_and(|value| value == "1")
}

fn seeds() -> u64 {
    std::env::var("STELLA_FUZZ_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("STELLA_FUZZ_SEEDS is a number"))
}

/// Plays one case; whatever it finds is reported together with its bytes.
fn play(body: fn(&[u8]), name: &str, case: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| body(case)) {
        let hex = vectors::to_hex(case);
        eprintln!("the case {name} failed; its bytes are {hex}");
        std::panic::resume_unwind(panic);
    }
}

fn replay(target: &str, body: fn(&[u8]), least: usize) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpus(target)).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= least, "{} has {} files", corpus(target).display(), files.len());
    for file in files {
        play(body, &file.display().to_string(), &fs::read(&file).expect("a corpus file"));
    }
}

#[test]
fn the_decoder_corpus_finds_nothing() {
    if blessing() {
        bless("decoder", decoder_cases());
    }
    replay("decoder", fuzz_decoder, 50);
}

#[test]
fn the_session_corpus_finds_nothing() {
    if blessing() {
        bless("session", session_cases());
    }
    replay("session", fuzz_session, 20);
}

#[test]
fn seeded_operations_find_nothing_in_a_session() {
    for seed in 1..=seeds() {
        play(fuzz_session, &format!("of seed {seed}"), &Cases::new(seed).operations());
    }
}

#[test]
fn seeded_mutations_of_the_golden_vectors_find_nothing_in_the_decoder() {
    let golden = golden_bytes();
    for seed in 1..=seeds() {
        play(fuzz_decoder, &format!("of seed {seed}"), &Cases::new(seed).mutated(&golden));
    }
}

/// Cases from a seed: the same on every machine.
struct Cases(Random);

impl Cases {
    const fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.number()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Operations whose arguments mostly make sense: ids that exist, bodies that fit, so that cases come deep.
    fn operations(&mut self) -> Vec<u8> {
        let mut case = vec![self.byte() & if self.below(4) == 0 { 0xff } else { 0xef }];
        let service = case[0] & 1 != 0;
        let mut next_peer: u8 = if service { 2 } else { 1 };
        for _ in 0..self.below(80) {
            let operation = match self.below(20) {
                0..=11 => self.one_of(&[1, 1, 2, 3, 4, 16, 17, 17, 18, 18, 19, 20, 20, 21, 23, 7, 6, 30]),
                12..=17 => self.byte() % 32,
                // Most cases would end here: rarely.
                18 => self.one_of(&[28, 9, 8, 10, 22, 24, 25, 26]),
                _ => self.one_of(&[5, 11, 13, 14, 31]),
            };
            case.push(operation);
            let id = self.byte() % 12;
            match operation {
                0 => {
                    let length = self.byte();
                    case.extend([0, length]);
                    case.extend((0..length).map(|_| self.byte()).collect::<Vec<u8>>());
                }
                1 => {
                    case.extend([next_peer, self.byte() & self.byte() & 0x7f]);
                    case.extend(self.length());
                    next_peer = next_peer.saturating_add(2);
                }
                2..=4 => {
                    case.extend([id, self.byte() & self.byte()]);
                    case.extend(self.length());
                }
                5 => case.extend([id, self.byte()]),
                6 => case.extend([id, self.byte() % 12]),
                7 => {
                    case.extend([self.one_of(&[0, id])]);
                    case.extend([0, 0, self.byte(), self.byte()]);
                }
                16 => {
                    case.push(self.byte() & self.byte());
                    case.extend(self.length());
                }
                17 => {
                    case.extend([self.byte(), self.byte() & self.byte()]);
                    case.extend(self.length());
                }
                18 => {
                    case.push(self.byte());
                    case.extend(self.length());
                }
                28 => case.extend([self.byte() % 64, self.byte()]),
                _ => case.extend([self.byte() % 12, self.byte() % 12]),
            }
        }
        case
    }

    fn length(&mut self) -> [u8; 2] {
        let length = match self.below(8) {
            0 => 0,
            1..=5 => self.below(300) as u16,
            6 => self.below(5000) as u16,
            _ => self.next() as u16,
        };
        length.to_be_bytes()
    }

    /// Some golden frames one after another, with a few bytes changed.
    fn mutated(&mut self, golden: &[Vec<u8>]) -> Vec<u8> {
        let mut case = vec![self.byte()];
        for _ in 0..=self.below(3) {
            let from = self.below(golden.len());
            case.extend(&golden[from]);
        }
        for _ in 0..self.below(6) {
            let at = self.below(case.len());
            match self.below(4) {
                0 => case[at] = self.byte(),
                1 => case[at] ^= 1 << self.below(8),
                2 => {
                    case.remove(at);
                }
                _ => case.insert(at, self.byte()),
            }
            if case.is_empty() {
                break;
            }
        }
        case
    }
}

fn golden_bytes() -> Vec<Vec<u8>> {
    let golden = vectors::read();
    ["frames", "tolerated", "session", "malformed"]
        .iter()
        .flat_map(|list| golden[*list].as_array().expect("a list of vectors"))
        .map(|vector| vectors::from_hex(vector["hex"].as_str().expect("hex")))
        .collect()
}

fn bless(target: &str, cases: Vec<(String, Vec<u8>)>) {
    let folder = corpus(target);
    fs::create_dir_all(&folder).expect("the corpus folder");
    for (name, case) in cases {
        fs::write(folder.join(name), case).expect("a corpus file");
    }
}

/// Each golden vector alone, the whole session as one stream, and some mutations of each kind.
fn decoder_cases() -> Vec<(String, Vec<u8>)> {
    let golden = vectors::read();
    let mut cases = Vec::new();
    for list in ["frames", "tolerated", "malformed"] {
        for vector in golden[list].as_array().expect("a list of vectors") {
            let bytes = vectors::from_hex(vector["hex"].as_str().expect("hex"));
            let name = vector["name"].as_str().expect("a name");
            cases.push((format!("{list}-{name}"), [&[0x07][..], &bytes].concat()));
        }
    }
    let session: Vec<u8> = golden["session"]
        .as_array()
        .expect("a session")
        .iter()
        .flat_map(|step| vectors::from_hex(step["hex"].as_str().expect("hex")))
        .collect();
    cases.push(("session".to_owned(), [&[0x3f][..], &session].concat()));
    let all = golden_bytes();
    for seed in 1..=20 {
        cases.push((format!("mutated-{seed:02}"), Cases::new(seed).mutated(&all)));
    }
    cases
}

/// Small scripts, by what they do; see the session body's list of operations.
fn session_cases() -> Vec<(String, Vec<u8>)> {
    const GATEWAY: u8 = 0x00;
    const SERVICE: u8 = 0x01;
    const SECRET: u8 = 0x02;
    const SMALL_BUDGET: u8 = 0x04;
    const SMALL_WINDOWS: u8 = 0x08;
    const RAW: u8 = 0x10;
    const SMALL_LEASE: u8 = 0x20;
    const LAZY: u8 = 0x40;
    let scripts: &[(&str, &[u8])] = &[
        ("handshake-with-secret-gateway", &[GATEWAY | SECRET]),
        ("handshake-with-secret-service", &[SERVICE | SECRET]),
        ("stranger-without-secret", &[GATEWAY | SECRET | RAW, 15, 0, 1, 1, 0, 1, 0, 0, 15, 2, 5]),
        ("impostor-gateway", &[SERVICE | SECRET | RAW, 15, 3, 0, 10, 15, 1, 15, 7, 0, 10]),
        ("no-common-version", &[GATEWAY | RAW, 15, 0, 2, 1, 0, 1, 0, 0]),
        ("request-before-welcome", &[GATEWAY | RAW, 1, 1, 1, 0, 0]),
        ("handshake-timeout", &[GATEWAY | RAW, 28, 0x27, 0x10, 28, 0xff, 0xff]),
        ("small-call-served", &[SERVICE, 1, 2, 1, 0, 5, 17, 0, 1, 0, 7, 23, 0]),
        ("small-call-made", &[GATEWAY, 16, 1, 0, 5, 2, 2, 1, 0, 7, 21, 0, 20, 0, 20, 0, 23, 0]),
        (
            "streaming-call-served",
            &[
                SERVICE, 1, 2, 0, 0, 9, 3, 2, 0, 1, 0, 20, 0, 20, 0, 3, 2, 1, 0, 9, 17, 0, 0, 0, 3, 18, 0, 2, 0, 19, 0,
                1, 23, 0,
            ],
        ),
        (
            "windows-run-dry",
            &[GATEWAY | SMALL_WINDOWS, 16, 0, 4, 0, 18, 0, 16, 0, 7, 2, 0, 0, 4, 0, 7, 0, 0, 0, 8, 0, 19, 0, 0],
        ),
        ("window-overrun", &[SERVICE | SMALL_WINDOWS, 1, 2, 0, 3, 0xe8, 3, 2, 0, 0, 1]),
        ("window-overflow", &[GATEWAY, 7, 0, 0xff, 0xff, 0xff, 0xff]),
        ("link-window-returns", &[SERVICE | SMALL_WINDOWS, 1, 2, 0, 3, 0, 1, 4, 0, 3, 0, 1, 6, 0, 3, 0, 20, 0, 20, 1]),
        ("cancel-before-transmission", &[GATEWAY | LAZY, 16, 0, 0, 9, 22, 0, 1, 30, 50, 23, 0]),
        ("cancel-then-owed-terminal", &[GATEWAY, 16, 0, 0, 9, 22, 0, 1, 4, 2, 1, 0, 4, 23, 0, 4, 2, 1, 0, 0]),
        ("cancelled-responder-owes", &[SERVICE | SMALL_LEASE, 1, 2, 0, 0, 9, 6, 2, 1, 6, 2, 1, 23, 0, 1, 4, 1, 0, 0]),
        ("lease-used-up", &[SERVICE | SMALL_LEASE, 1, 2, 0, 0, 0, 1, 4, 0, 0, 0, 1, 6, 0, 0, 0, 23, 0, 1, 8, 1, 0, 0]),
        ("refused-before-a-handler", &[GATEWAY, 16, 1, 0, 5, 6, 2, 5, 21, 0, 23, 0]),
        ("wrong-length-request", &[SERVICE, 1, 2, 0x09, 0, 5]),
        ("wrong-length-response", &[GATEWAY, 16, 1, 0, 0, 2, 2, 0x08, 0, 5, 4, 2, 1, 0, 9, 20, 0, 23, 0]),
        ("odd-extension", &[SERVICE, 1, 2, 0x20, 0, 0, 1, 4, 0x21, 0, 0]),
        ("id-goes-back", &[SERVICE, 1, 4, 1, 0, 0, 1, 2, 1, 0, 0]),
        ("id-of-the-wrong-side", &[SERVICE, 1, 1, 1, 0, 0]),
        ("frame-for-an-id-never-opened", &[GATEWAY, 6, 40, 1]),
        ("two-responses", &[GATEWAY, 16, 1, 0, 0, 2, 2, 0, 0, 0, 2, 2, 0, 0, 0]),
        ("data-before-response", &[GATEWAY, 16, 1, 0, 0, 4, 2, 0, 0, 3]),
        ("data-after-the-end", &[SERVICE, 1, 2, 1, 0, 0, 3, 2, 0, 0, 3]),
        (
            "trailers-both-ways",
            &[SERVICE, 1, 2, 0, 0, 3, 5, 2, 0, 20, 0, 20, 0, 20, 0, 17, 0, 0, 0, 3, 19, 0, 1, 23, 0],
        ),
        ("tunnel", &[SERVICE, 1, 2, 2, 0, 3, 17, 0, 0, 0, 0, 18, 0, 0, 9, 3, 2, 0, 0, 4, 5, 2, 0]),
        ("drain-agreed", &[GATEWAY, 1, 1, 0, 0, 0, 24, 11, 1, 1, 17, 0, 1, 0, 0, 23, 0, 1, 3, 0, 0, 0]),
        ("drain-overdue", &[SERVICE, 1, 2, 0, 0, 0, 24, 28, 0x13, 0x88, 1, 4, 1, 0, 0, 11, 1, 9]),
        (
            "peer-drains",
            &[GATEWAY | LAZY, 16, 1, 0, 0, 30, 9, 16, 1, 0, 0, 11, 0, 0, 16, 1, 0, 0, 30, 99, 23, 0, 23, 0],
        ),
        ("final-drain-above", &[GATEWAY, 16, 1, 0, 0, 16, 1, 0, 0, 11, 2, 2, 21, 1, 23, 0, 23, 0]),
        ("close-with-last", &[GATEWAY, 16, 1, 0, 0, 16, 1, 0, 0, 12, 14, 2, 21, 0, 21, 1]),
        ("heartbeats-acked", &[GATEWAY, 9, 1, 28, 0x27, 0x10, 9, 2, 8, 3, 8, 4, 9, 9]),
        ("silence-kills", &[SERVICE, 28, 0x3a, 0x98, 28, 0x3a, 0x98]),
        ("registration-in-parts", &[GATEWAY, 13, 1, 0, 0, 5, 13, 1, 1, 1, 3, 27, 1, 2]),
        ("registration-gap", &[GATEWAY, 13, 1, 0, 0, 5, 13, 1, 2, 1, 3]),
        ("registration-id-twice", &[GATEWAY, 13, 1, 0, 1, 202]),
        ("results-in-parts", &[SERVICE, 27, 1, 5, 14, 1, 0, 0, 2, 14, 1, 1, 1, 2]),
        ("stalled-reader", &[SERVICE | SMALL_BUDGET, 1, 2, 0, 4, 0, 28, 0, 9, 1, 4, 0, 4, 0, 20, 0, 20, 1]),
        ("lease-announced", &[SERVICE, 26, 3, 9, 26, 2, 1]),
        ("lease-updated", &[GATEWAY, 10, 3, 1, 16, 1, 0, 0, 16, 1, 0, 0, 10, 2, 9, 10, 4, 9]),
        ("ignorable-frames", &[GATEWAY | RAW, 31, 0x60, 0, 9, 15, 0, 1, 1, 0, 1, 0, 0, 31, 0x60, 0, 9]),
        (
            "many-streams-share",
            &[GATEWAY | LAZY, 16, 0, 0xff, 0, 16, 0, 0xff, 0, 16, 1, 0, 3, 30, 99, 19, 0, 0, 19, 1, 1, 30, 99],
        ),
    ];
    let mut cases: Vec<(String, Vec<u8>)> =
        scripts.iter().map(|(name, script)| ((*name).to_owned(), script.to_vec())).collect();
    for seed in 1..=20 {
        cases.push((format!("seeded-{seed:02}"), Cases::new(seed).operations()));
    }
    cases
}
