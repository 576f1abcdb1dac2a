//! Times the data order of a 435B-token stage: start, one place, a commitment.
use std::hint::black_box;
use std::time::Instant;

use aurora_compiler::fields::{OrderComponent, OrderFields};
use aurora_runtime::data::order::{Order, commitment};

fn main() {
    let component = |(at, weight_ppm): (usize, u32)| OrderComponent {
        name: format!("c{at}"),
        weight_ppm,
        until_ppm: None,
    };
    let weights = [300_000, 150_000, 100_000, 50_000, 399_999, 1];
    let fields = OrderFields {
        seed: 1,
        sequence: 2048,
        components: weights.into_iter().enumerate().map(component).collect(),
        samples: None,
    };
    let samples = [60_000_000, 5_000_000, 1_234_567, 7_654_321, 90_000_000, 50];
    let start = Instant::now();
    let order = match Order::new(&fields, &samples) {
        Ok(order) => order,
        Err(error) => return eprintln!("{error}"),
    };
    println!("start: {:?}", start.elapsed());
    let total = 212_402_343u64;
    let count = 2_000_000u64;
    let start = Instant::now();
    for k in 0..count {
        black_box(order.sample(black_box(k.wrapping_mul(0x9E37_79B9_7F4A_7C15) % total)));
    }
    println!("one place: {:.0} ns", start.elapsed().as_nanos() as f64 / count as f64);
    let start = Instant::now();
    let length = 4_000_000u64;
    println!("commitment: {}", commitment(&order, 0..length));
    println!(
        "commitment: {:.0} ns a place",
        start.elapsed().as_nanos() as f64 / length as f64
    );
}
