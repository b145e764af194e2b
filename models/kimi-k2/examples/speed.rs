//! Prints how fast a checkpoint computes: `cargo run --release -p kimi-k2 --example speed -- models/kimi-nano [int8]`.

use std::{path::PathBuf, time::Instant};

use kimi_k2::{Batch, CacheDtype, Checkpoint, CheckpointFiles, KimiModel, KvPool, ModelError, SequenceSpan};

const BLOCK_SIZE: usize = 16;
const CONTEXT: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).map_or_else(|| PathBuf::from("models/kimi-nano"), PathBuf::from);
    let started = Instant::now();
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory))?;
    let model = KimiModel::load(&checkpoint, &mut |_, _| {})?;
    report(&format!("load {:.1} MB", checkpoint.total_bytes() as f64 / 1e6), started, 1);

    for rows in [64, 512, 2048] {
        let mut kv = pool(&model, 1)?;
        measure(&format!("prefill {rows}"), rows, || forward(&model, &mut kv, 1, 0, rows))?;
    }
    let mut kv = pool(&model, 1)?;
    measure("prefill 512 after 3000", 512, || forward(&model, &mut kv, 1, 3000, 512))?;
    for (sequences, start) in [(1, 16), (1, 1000), (1, 4000), (4, 1000), (16, 1000)] {
        let mut kv = pool(&model, sequences)?;
        let name = format!("decode {sequences} after {start}");
        measure(&name, sequences, || forward(&model, &mut kv, sequences, start, 1))?;
    }
    Ok(())
}

fn pool(model: &KimiModel, sequences: usize) -> Result<KvPool, ModelError> {
    KvPool::new(model.config(), sequences * CONTEXT / BLOCK_SIZE, BLOCK_SIZE, CacheDtype::Bf16)
}

/// One batch of `rows` tokens for each of some sequences, sampling the last row of each.
fn forward(
    model: &KimiModel,
    kv: &mut KvPool,
    sequences: usize,
    start: usize,
    rows: usize,
) -> Result<(), ModelError> {
    let blocks = (CONTEXT / BLOCK_SIZE) as u32;
    let batch = Batch {
        token_ids: (0..sequences * rows).map(|row| (row * 7 % model.config().vocab_size) as u32).collect(),
        spans: (0..sequences)
            .map(|sequence| SequenceSpan {
                rows: sequence * rows..(sequence + 1) * rows,
                start,
                block_table: (sequence as u32 * blocks..(sequence as u32 + 1) * blocks).collect(),
            })
            .collect(),
        sample_rows: (1..=sequences).map(|sequence| (sequence * rows - 1) as u32).collect(),
    };
    model.forward(&batch, kv).map(|_| ())
}

/// Best of several runs, in tokens a second.
fn measure(
    name: &str,
    tokens: usize,
    mut run: impl FnMut() -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    run()?;
    let mut best = f64::INFINITY;
    let until = Instant::now();
    while until.elapsed().as_secs_f64() < 1.0 {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    print(&format!("{name:24} {:8.2} ms {:10.0} tokens/s", best * 1e3, tokens as f64 / best));
    Ok(())
}

fn report(name: &str, started: Instant, runs: u32) {
    print(&format!("{name:24} {:8.2} ms", started.elapsed().as_secs_f64() * 1e3 / f64::from(runs)));
}

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
