//! End to end over a broker of its own: events waiting in the daemon's queue, each of which becomes a committed turn and
//! a confirmed command; beside it, in the same run, an echo through the same client library that keeps nothing. Prints
//! events/s and CPU per event of each, medians of runs in turns, and the ratio. `--events N`, `--runs N`.

#[path = "../tests/it/broker.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod broker;
#[path = "end_to_end/daemon.rs"]
mod daemon;
#[path = "end_to_end/echo.rs"]
mod echo;

use broker::Broker;

/// So that `cargo bench` ends in a minute or two.
const EVENTS: usize = 10_000;
const RUNS: usize = 5;

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub per_second: f64,
    pub cpu_us: f64,
}

#[expect(clippy::print_stdout, reason = "figures are what it is run for")]
fn main() {
    let asked = |name: &str, default: usize| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    // `cargo test --benches` only asks whether it works.
    let tried = std::env::args().any(|argument| argument == "--test");
    let events = asked("--events", if tried { 300 } else { EVENTS });
    let runs = asked("--runs", if tried { 1 } else { RUNS });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let broker = Broker::start();
    let (mut echoes, mut daemons) = (Vec::new(), Vec::new());
    for run in 0..runs {
        echoes.push(runtime.block_on(echo::measured(&broker, run, events)));
        daemons.push(runtime.block_on(daemon::measured(&broker, run, events)));
    }
    println!("{events} events of 300 bytes, quorum queue, persistent, confirmed, synchronous=FULL");
    let ceiling = report("echo through lapin", &echoes, None);
    report("sagad", &daemons, Some(ceiling));
}

#[expect(clippy::print_stdout, reason = "figures are what it is run for")]
fn report(name: &str, figures: &[Figure], ceiling: Option<f64>) -> f64 {
    let (per_second, lowest, highest) = median(figures.iter().map(|figure| figure.per_second).collect());
    let (cpu_us, ..) = median(figures.iter().map(|figure| figure.cpu_us).collect());
    let share = 100.0 * per_second / ceiling.unwrap_or(per_second);
    println!(
        "{name:<20} {per_second:>8.0} events/s ({lowest:.0}–{highest:.0}) {cpu_us:>7.1} µs CPU/event {share:>5.0} %"
    );
    per_second
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// CPU time of a process, all threads, in microseconds.
pub fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime in hundredths of a second.
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10_000.0
}

pub fn as_float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
