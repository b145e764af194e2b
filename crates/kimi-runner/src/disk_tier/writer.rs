//! The thread that writes and deletes, so that nobody who waits for a token waits for a disk.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use kimi_scheduler::{BlockKey, TierReport};
use tracing::{info, warn};

use super::directory::Directory;

enum Command {
    Save(BlockKey, Vec<u8>),
    Drop(BlockKey),
}

/// The rank thread's end. Dropping it waits until everything is written.
pub(super) struct Writer {
    /// `None` once it is told to end.
    commands: Option<Sender<Command>>,
    /// What was written, and what could not be.
    done: Receiver<(BlockKey, bool)>,
    /// Copies that were handed over and not heard of again, in order.
    waiting: VecDeque<BlockKey>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(directory: Directory) -> std::io::Result<Self> {
        let (commands, inbox) = channel();
        let (outbox, done) = channel();
        let thread = thread::Builder::new()
            .name("kv-disk".into())
            .spawn(move || write_all(&directory, &inbox, &outbox))?;
        Ok(Self { commands: Some(commands), done, waiting: VecDeque::new(), thread: Some(thread) })
    }

    /// Copies that were handed over and not heard of again.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a copy over; never waits.
    pub(super) fn save(&mut self, key: BlockKey, bytes: Vec<u8>) {
        self.waiting.push_back(key);
        self.send(Command::Save(key, bytes));
    }

    /// Deletes a block, after the saves before it.
    pub(super) fn drop_block(&mut self, key: BlockKey) {
        self.send(Command::Drop(key));
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }

    /// Notes what is done by now.
    pub(super) fn collect(&mut self, report: &mut TierReport) {
        while let Ok(done) = self.done.try_recv() {
            self.note(done, report);
        }
    }

    /// Waits until everything is written. If the thread has died, the rest is lost.
    pub(super) fn wait(&mut self, report: &mut TierReport) {
        while let Some(next) = self.waiting.front() {
            let done = self.done.recv().unwrap_or((*next, false));
            self.note(done, report);
        }
    }

    fn note(&mut self, (key, written): (BlockKey, bool), report: &mut TierReport) {
        self.waiting.pop_front();
        if written { report.written.push(key) } else { report.unwritten.push(key) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The life of the thread. A disk that refuses is told of once, and once more when it is well again.
fn write_all(directory: &Directory, inbox: &Receiver<Command>, outbox: &Sender<(BlockKey, bool)>) {
    let mut failing = false;
    while let Ok(command) = inbox.recv() {
        match command {
            Command::Drop(key) => directory.delete(key),
            Command::Save(key, bytes) => {
                let written = directory.write(key, &bytes);
                match &written {
                    Err(error) if !failing => {
                        warn!(%error, "--kv-disk cannot be written to; blocks are lost");
                    }
                    Ok(()) if failing => info!("--kv-disk can be written to again"),
                    _ => {}
                }
                failing = written.is_err();
                // Nobody listens once the rank has ended; what is left is written all the same.
                let _ = outbox.send((key, written.is_ok()));
            }
        }
    }
}
