//! Times `aurora data at` and `where` on a stage of 435B tokens in 400M documents.
//!
//! The order is real. The files have their real lengths, but only the entries that the questions read are written: each entry
//! is a function of its place, and the answers are compared with that function. Everything is in the page cache.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use aurora_compiler::fields::{OrderComponent, OrderFields};
use aurora_runtime::data::document_index::{IndexedDocuments, id_digest};
use aurora_runtime::data::order::Order;
use aurora_runtime::data::tokens::{TokenStream, last_at_or_before};
use aurora_runtime::data::uses::StageData;
use camino::{Utf8Path, Utf8PathBuf};

const SEQUENCE: u32 = 2048;
const GLOBAL_BATCH: u32 = 2048;
/// 435B tokens.
const STEPS: u64 = 103_711;
/// Weights in millionths and documents of the components.
const COMPONENTS: [(u32, u64); 6] = [
    (300_000, 120_000_000),
    (150_000, 20_000_000),
    (100_000, 60_000_000),
    (50_000, 9_999_000),
    (399_999, 190_000_000),
    (1, 1000),
];
/// Bytes of a line of `train.jsonl`.
const LINE: u64 = 32;

type Failed = Box<dyn Error>;

/// Where a document starts, in tokens: each has from 88 to 2,087 tokens, 1,087.5 on average.
fn start(document: u64) -> u64 {
    document * 1087 + document.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1000
}

/// A component's files; entries are written when a question will read them.
struct Files {
    documents: u64,
    idx: File,
    index: File,
    lines: File,
    paths: [Utf8PathBuf; 4],
}

impl Files {
    fn create(folder: &Utf8Path, component: usize, documents: u64) -> Result<Self, Failed> {
        let paths = ["bin", "idx", "docs", "jsonl"].map(|ending| folder.join(format!("{component}.{ending}")));
        let create = |path: &Utf8PathBuf, bytes: u64| -> Result<File, Failed> {
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            file.set_len(bytes)?;
            Ok(file)
        };
        let (count, tokens) = (documents, start(documents));
        create(&paths[0], 2 * tokens)?;
        let files = Self {
            documents,
            idx: create(&paths[1], 34 + 12 * count + 8 * (count + 1))?,
            index: create(&paths[2], 40 + 24 * count)?,
            lines: create(&paths[3], LINE * count)?,
            paths,
        };
        let mut header = b"MMIDIDX\0\0".to_vec();
        header.extend(1u64.to_le_bytes());
        header.push(8);
        header.extend(count.to_le_bytes());
        header.extend((count + 1).to_le_bytes());
        files.idx.write_all_at(&header, 0)?;
        let last = (start(count) - start(count - 1)) as u32;
        files.idx.write_all_at(&last.to_le_bytes(), 34 + 4 * (count - 1))?;
        files.starts(count - 1)?;
        files.starts(count)?;
        let words = [1, count, 1, count].map(u64::to_le_bytes).concat();
        files.index.write_all_at(b"AURDOCS\0", 0)?;
        files.index.write_all_at(&words, 8)?;
        Ok(files)
    }

    /// Writes the offset and the boundary of a document.
    fn starts(&self, document: u64) -> Result<(), Failed> {
        let count = self.documents;
        if document > count {
            return Ok(());
        }
        if document < count {
            let offset = 2 * start(document);
            self.idx
                .write_all_at(&offset.to_le_bytes(), 34 + 4 * count + 8 * document)?;
        }
        Ok(self
            .idx
            .write_all_at(&document.to_le_bytes(), 34 + 12 * count + 8 * document)?)
    }

    /// Writes what a search for the document of a token reads, and the line of the document; returns the document.
    fn token(&self, position: u64) -> Result<u64, Failed> {
        let tokens = start(self.documents);
        let low = last_at_or_before(self.documents, tokens, position, |document| {
            self.starts(document)?;
            Ok::<_, Failed>(start(document))
        })?;
        self.line(low)?;
        Ok(low)
    }

    fn line(&self, document: u64) -> Result<(), Failed> {
        if document >= self.documents {
            return Ok(());
        }
        self.starts(document)?;
        self.starts(document + 1)?;
        // A line starts after the end of the one before.
        let line = format!("\n{{\"id\":\"{}\",\"text\":\"\"}}", id(document));
        match document {
            0 => self.lines.write_all_at(&line.as_bytes()[1..], 0)?,
            _ => self.lines.write_all_at(line.as_bytes(), LINE * document - 1)?,
        }
        Ok(self
            .index
            .write_all_at(&(LINE * document).to_le_bytes(), 40 + 8 * document)?)
    }

    /// Writes what a search for the id of a document reads.
    fn id(&self, document: u64) -> Result<(), Failed> {
        self.line(document)?;
        let (count, digest) = (self.documents, id_digest(&id(document)));
        // Digests are spread evenly.
        let spread = |at: u64| ((u128::from(at) << 64) / u128::from(count)) as u64;
        let entry = |at: u64, digest: u64, number: u64| {
            let bytes = [digest, number].map(u64::to_le_bytes).concat();
            self.index.write_all_at(&bytes, 40 + 8 * count + 16 * at)
        };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            entry(middle, spread(middle), 0)?;
            if spread(middle) < digest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.min(count - 1);
        if at + 1 < count {
            entry(at + 1, spread(at + 1).max(digest + 1), 0)?;
        }
        Ok(entry(at, digest, document)?)
    }
}

fn id(document: u64) -> String {
    format!("d{document:09}")
}

/// Prints the median and the largest of some times.
fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let [middle, most] = [times[times.len() / 2], times[times.len() - 1]].map(|time| time.as_secs_f64() * 1e3);
    println!(
        "{what}: {middle:.2} ms, at most {most:.2} ms ({} questions)",
        times.len()
    );
}

fn order() -> Result<Order, Failed> {
    let component = |(at, (weight_ppm, _)): (usize, (u32, u64))| OrderComponent {
        name: format!("c{at}"),
        weight_ppm,
        until_ppm: None,
    };
    let fields = OrderFields {
        seed: 1,
        sequence: SEQUENCE,
        components: COMPONENTS.into_iter().enumerate().map(component).collect(),
        samples: None,
    };
    let samples = COMPONENTS.map(|(_, documents)| (start(documents) - 1) / u64::from(SEQUENCE));
    Ok(Order::new(&fields, &samples)?)
}

/// The files as a command opens them.
fn open(files: &[Files]) -> Result<(StageData, Vec<IndexedDocuments>), Failed> {
    let (mut streams, mut documents) = (Vec::new(), Vec::new());
    for files in files {
        let [bin, idx, index, lines] = &files.paths;
        streams.push(TokenStream::open_verified([(bin.as_path(), idx.as_path())])?);
        documents.push(IndexedDocuments::open(index, std::slice::from_ref(lines))?);
    }
    let data = StageData::new(order()?, streams, SEQUENCE, GLOBAL_BATCH, STEPS);
    Ok((data, documents))
}

/// Opens everything and prints the documents of a step, as `aurora data at` does.
fn at(files: &[Files], step: u64) -> Result<Duration, Failed> {
    let order = order()?;
    let positions = (step - 1) * u64::from(GLOBAL_BATCH)..step * u64::from(GLOBAL_BATCH);
    for position in positions.clone() {
        let sample = order.sample(position);
        let first = sample.index * u64::from(SEQUENCE);
        let (mut document, end) = (files[sample.component].token(first)?, first + u64::from(SEQUENCE) + 1);
        while start(document + 1) < end {
            document += 1;
            files[sample.component].line(document)?;
        }
        files[sample.component].line(document + 1)?;
    }
    let began = Instant::now();
    let (data, documents) = open(files)?;
    let mut ids = Vec::new();
    for found in data.samples_at(positions)? {
        for span in &found.spans {
            ids.push((span.document, documents[found.sample.component].id(span.document)?));
        }
    }
    let time = began.elapsed();
    if ids.iter().any(|(document, found)| *found != id(*document)) {
        return Err("a document has the id of another one".into());
    }
    Ok(time)
}

/// Opens everything and finds the steps that read a document, as `aurora data where --document` does.
fn document(files: &[Files], component: usize, number: u64) -> Result<Duration, Failed> {
    // Other components may have a document with the same id.
    for files in files.iter().filter(|files| number < files.documents) {
        files.id(number)?;
    }
    let wanted = id(number);
    let began = Instant::now();
    let (data, documents) = open(files)?;
    let mut found = Vec::new();
    for (component, documents) in documents.iter().enumerate() {
        for number in documents.find(&wanted)? {
            let tokens = data.streams()[component].files()[0].document(number)?;
            let samples = data.samples_of(component, tokens);
            found.push((component, number, data.uses(component, &[samples])));
        }
    }
    let time = began.elapsed();
    let order = order()?;
    for (component, number, uses) in &found {
        let tokens = start(*number)..start(number + 1);
        for at in uses {
            let sample = order.sample(at.position);
            let first = sample.index * u64::from(SEQUENCE);
            if sample.component != *component || first > tokens.end || first + u64::from(SEQUENCE) < tokens.start {
                return Err(format!("step {} does not read document {number}", at.step).into());
            }
        }
    }
    if !found
        .iter()
        .any(|(found, same, _)| (*found, *same) == (component, number))
    {
        return Err(format!("document {number} is not found").into());
    }
    Ok(time)
}

/// Finds the ranges of steps that read a source with this part of a component's documents.
fn source(files: &[Files], component: usize, part: f64) -> Result<Duration, Failed> {
    let count = ((files[component].documents as f64 * part) as u64).max(1);
    let first = (files[component].documents - count) / 3;
    files[component].line(first)?;
    files[component].line(first + count - 1)?;
    let began = Instant::now();
    let (data, _) = open(files)?;
    let file = &data.streams()[component].files()[0];
    let tokens = file.document(first)?.start..file.document(first + count - 1)?.end;
    let samples = data.samples_of(component, tokens);
    black_box(data.step_ranges(component, &[samples]));
    Ok(began.elapsed())
}

fn main() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = Utf8Path::from_path(folder.path()).ok_or("the folder for temporary files is not UTF-8")?;
    let documents: u64 = COMPONENTS.iter().map(|(_, documents)| documents).sum();
    let tokens: u64 = COMPONENTS.iter().map(|(_, documents)| start(*documents)).sum();
    println!(
        "{documents} documents with {tokens} tokens; a stage of {STEPS} steps of {GLOBAL_BATCH} samples of {SEQUENCE}"
    );
    let mut files = Vec::new();
    for (component, (_, documents)) in COMPONENTS.into_iter().enumerate() {
        files.push(Files::create(path, component, documents)?);
    }
    let steps = [1, 17, STEPS / 3, STEPS / 2, STEPS - 1, STEPS];
    let times = steps
        .map(|step| at(&files, step))
        .into_iter()
        .collect::<Result<_, _>>()?;
    report("at, all documents of a step", times);
    let mut times = Vec::new();
    for question in 0u64..60 {
        let component = (question % 6) as usize;
        let number = question.wrapping_mul(0x9E37_79B9_7F4A_7C15) % COMPONENTS[component].1;
        times.push(document(&files, component, number)?);
    }
    report("where, a document", times);
    for part in [1e-6, 1e-4, 0.01, 0.1, 0.9] {
        let times = (0..3).map(|_| source(&files, 4, part)).collect::<Result<_, _>>()?;
        report(&format!("where, a source with {}% of a component", part * 100.0), times);
    }
    Ok(())
}
