//! Plans written out, for the cases a reader asks about.

use std::sync::Arc;

use kimi_scheduler::{
    CacheScope, Limits, Sample, Scheduler, SchedulerConfig, SequenceId, SequenceRequest, Speculation,
    Standing, StepPlan, Tenant,
};
use kimi_tokens::{ContentHash, Medium, PatchGrid, PromptMedium};

fn scheduler(block_count: usize, max_batch_tokens: usize) -> Scheduler {
    Scheduler::new(SchedulerConfig {
        block_size: 2,
        block_count,
        max_batch_tokens,
        max_sequences: 4,
        max_context: 64,
        speculation: None,
    })
}

fn add(scheduler: &mut Scheduler, id: u64, prompt_tokens: u32, max_tokens: usize) {
    add_scoped(scheduler, id, prompt_tokens, max_tokens, None);
}

/// Tokens 0, 1, 2 and so on, found and left in the prefix cache of tenant `scope`.
fn add_scoped(scheduler: &mut Scheduler, id: u64, prompt_tokens: u32, max_tokens: usize, scope: Option<u8>) {
    let tokens: Vec<u32> = (0..prompt_tokens).collect();
    let request = SequenceRequest {
        tokens: &tokens,
        limits: Limits { max_tokens, stop_tokens: vec![] },
        scope: scope.map(|byte| CacheScope([byte; 32])),
        ..SequenceRequest::default()
    };
    scheduler.add(SequenceId(id), request).expect("the prompt fits");
}

/// One step in which every sample is token 9. Each entry as `id start..end (blocks)`, `*` when it samples and `?n` when it
/// drafts `n` tokens; then `-id` for each retired sequence.
fn step(scheduler: &mut Scheduler) -> String {
    let plan = scheduler.plan_step();
    let samples = plan.entries.iter().filter(|entry| entry.samples).flat_map(|entry| {
        let right = entry.draft_tokens().iter().take_while(|token| **token == 9).count();
        std::iter::repeat_n(Sample { sequence: entry.sequence, token: Some(9) }, right + 1)
    });
    let samples: Vec<_> = samples.collect();
    if !plan.entries.is_empty() {
        scheduler.commit(&plan, &samples);
    }
    scheduler.check_invariants();
    describe(&plan)
}

fn describe(plan: &StepPlan) -> String {
    let entries = plan.entries.iter().map(|entry| {
        let end = entry.start + entry.tokens.len();
        let star = if entry.samples { "*" } else { "" };
        let draft = if entry.draft > 0 { format!("?{}", entry.draft) } else { String::new() };
        format!("{} {}..{end}{star}{draft} ({})", entry.sequence.0, entry.start, entry.blocks.len())
    });
    let retired = plan.retired.iter().map(|id| format!("-{}", id.0));
    entries.chain(retired).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_long_prompt_is_computed_in_chunks_beside_a_running_sequence() {
    let mut scheduler = scheduler(16, 4);
    add(&mut scheduler, 0, 2, 9);
    assert_eq!(step(&mut scheduler), "0 0..2* (1)");
    add(&mut scheduler, 1, 7, 1);
    assert_eq!(step(&mut scheduler), "0 2..3* (2), 1 0..3 (2)");
    assert_eq!(step(&mut scheduler), "0 3..4* (2), 1 3..6 (3)");
    assert_eq!(step(&mut scheduler), "0 4..5* (3), 1 6..7* (4)");
    assert_eq!(step(&mut scheduler), "0 5..6* (3), -1", "the runner hears that 1 has ended");
}

#[test]
fn prompts_take_small_steps_while_somebody_is_answered() {
    let mut scheduler = scheduler(16, 16);
    scheduler.set_catch_up(2);
    add(&mut scheduler, 0, 6, 4);
    assert_eq!(step(&mut scheduler), "0 0..6* (3)", "nobody is answered yet");
    add(&mut scheduler, 1, 5, 1);
    add(&mut scheduler, 2, 3, 1);
    assert_eq!(step(&mut scheduler), "0 6..7* (4), 1 0..3 (2)", "2 waits for its share");
    assert_eq!(step(&mut scheduler), "0 7..8* (4), 1 3..5* (3), 2 0..2 (1)", "1 leaves one token of two");
    assert_eq!(step(&mut scheduler), "0 8..9* (5), 2 2..3* (2), -1");
}

#[test]
fn sequences_join_and_leave_between_steps() {
    let mut scheduler = scheduler(16, 8);
    add(&mut scheduler, 0, 2, 2);
    assert_eq!(step(&mut scheduler), "0 0..2* (1)");
    add(&mut scheduler, 1, 3, 3);
    assert_eq!(step(&mut scheduler), "0 2..3* (2), 1 0..3* (2)");
    assert_eq!(step(&mut scheduler), "1 3..4* (2), -0");
    add(&mut scheduler, 2, 1, 1);
    assert_eq!(step(&mut scheduler), "1 4..5* (3), 2 0..1* (1)");
    assert_eq!(step(&mut scheduler), "", "idle: what was retired waits for the next plan");
    add(&mut scheduler, 3, 1, 1);
    assert_eq!(step(&mut scheduler), "3 0..1* (1), -1, -2");
}

#[test]
fn the_last_to_arrive_gives_up_its_blocks_and_starts_over() {
    let mut scheduler = scheduler(5, 8);
    add(&mut scheduler, 0, 2, 8);
    add(&mut scheduler, 1, 2, 5);
    assert_eq!(step(&mut scheduler), "0 0..2* (1), 1 0..2* (1)");
    assert_eq!(step(&mut scheduler), "0 2..3* (2), 1 2..3* (2)");
    assert_eq!(step(&mut scheduler), "0 3..4* (2), 1 3..4* (2)");
    assert_eq!(step(&mut scheduler), "0 4..5* (3)", "no block is left; 1 keeps what it has and sits out");
    assert_eq!(step(&mut scheduler), "0 5..6* (3)");
    assert_eq!(step(&mut scheduler), "0 6..7* (4)", "1 is preempted");
    assert_eq!(scheduler.load().preemptions, 1);
    assert_eq!(scheduler.load().waiting, 1);
    assert_eq!(step(&mut scheduler), "0 7..8* (4)");
    assert_eq!(step(&mut scheduler), "0 8..9* (5)");
    assert_eq!(
        step(&mut scheduler),
        "1 0..5* (3), -0",
        "its own text is computed again, without sampling it again"
    );
    assert_eq!(step(&mut scheduler), "1 5..6* (3)");
    assert_eq!(step(&mut scheduler), "");
}

#[test]
fn a_request_that_never_ran_leaves_no_trace() {
    let mut scheduler = scheduler(16, 8);
    add(&mut scheduler, 0, 2, 1);
    scheduler.cancel(SequenceId(0));
    scheduler.cancel(SequenceId(7));
    add(&mut scheduler, 8, 2, 1);
    assert_eq!(step(&mut scheduler), "8 0..2* (1)");
}

#[test]
fn a_request_that_does_not_fit_yet_is_not_overtaken() {
    let mut scheduler = scheduler(4, 8);
    add(&mut scheduler, 0, 2, 3);
    assert_eq!(step(&mut scheduler), "0 0..2* (1)");
    add(&mut scheduler, 1, 5, 1);
    add(&mut scheduler, 2, 1, 1);
    assert_eq!(
        step(&mut scheduler),
        "0 2..3* (2)",
        "1 could have the last 3 blocks, but 0 is about to need one"
    );
    assert_eq!(step(&mut scheduler), "0 3..4* (2)");
    assert_eq!(step(&mut scheduler), "1 0..5* (3), -0", "2 would need the block that 1 may grow into");
    assert_eq!(step(&mut scheduler), "2 0..1* (1), -1");
}

#[test]
fn a_prefix_is_computed_once() {
    let mut scheduler = scheduler(16, 16);
    add_scoped(&mut scheduler, 0, 5, 2, Some(1));
    add_scoped(&mut scheduler, 1, 5, 1, Some(1));
    assert_eq!(step(&mut scheduler), "0 0..5* (3), 1 0..5* (3)", "nothing is known before a step has ended");
    add_scoped(&mut scheduler, 2, 9, 1, Some(1));
    add_scoped(&mut scheduler, 3, 9, 1, Some(2));
    assert_eq!(step(&mut scheduler), "0 5..6* (3), 2 4..9* (5), 3 0..9* (5), -1", "blocks in use are shared");
    add_scoped(&mut scheduler, 4, 4, 1, Some(1));
    add_scoped(&mut scheduler, 5, 9, 1, Some(2));
    add_scoped(&mut scheduler, 6, 9, 1, None);
    assert_eq!(
        step(&mut scheduler),
        "4 2..4* (2), 5 8..9* (5), 6 0..9* (5), -0, -2, -3",
        "and blocks that were; the last token of a prompt is always computed"
    );
    let load = scheduler.load();
    assert_eq!((load.prefix_queries, load.prefix_hits), (5 + 5 + 9 + 9 + 4 + 9, 4 + 2 + 8));
    assert_eq!(
        (load.blocks_used, load.blocks_kept),
        (0, 9),
        "4 of each tenant, and one with a token that was generated"
    );
}

#[test]
fn the_end_of_the_longest_unused_prefix_is_forgotten_first() {
    let mut scheduler = scheduler(6, 16);
    add_scoped(&mut scheduler, 0, 6, 1, Some(1));
    assert_eq!(step(&mut scheduler), "0 0..6* (3)");
    add_scoped(&mut scheduler, 1, 4, 1, Some(2));
    assert_eq!(step(&mut scheduler), "1 0..4* (2), -0");
    assert_eq!(scheduler.load().blocks_kept, 5);
    add(&mut scheduler, 2, 3, 1);
    assert_eq!(step(&mut scheduler), "2 0..3* (2), -1", "one blank block, and the last one of tenant 1");
    add_scoped(&mut scheduler, 3, 7, 1, Some(1));
    assert_eq!(step(&mut scheduler), "3 4..7* (4), -2");
    add_scoped(&mut scheduler, 4, 5, 1, Some(2));
    assert_eq!(step(&mut scheduler), "4 4..5* (3), -3");
}

#[test]
fn a_preempted_sequence_finds_what_is_left_of_its_blocks() {
    let mut scheduler = scheduler(5, 8);
    add_scoped(&mut scheduler, 0, 2, 6, None);
    add_scoped(&mut scheduler, 1, 2, 5, Some(1));
    for _ in 0..5 {
        step(&mut scheduler);
    }
    assert_eq!(step(&mut scheduler), "0 6..7* (4)", "1 is preempted; its second block was taken");
    assert_eq!(step(&mut scheduler), "1 2..5* (3), -0");
    assert_eq!(scheduler.load().prefix_hits, 0, "no saving for the client");
}

#[test]
fn blocks_behind_broken_logits_are_not_found_again() {
    let mut scheduler = scheduler(8, 8);
    add_scoped(&mut scheduler, 0, 5, 4, Some(1));
    let plan = scheduler.plan_step();
    scheduler.commit(&plan, &[Sample { sequence: SequenceId(0), token: None }]);
    scheduler.check_invariants();
    add_scoped(&mut scheduler, 1, 5, 1, Some(1));
    assert_eq!(step(&mut scheduler), "1 0..5* (3), -0");
}

/// Six equal tokens and one more; of the former, `positions` show an image.
fn add_seeing(scheduler: &mut Scheduler, id: u64, positions: std::ops::Range<usize>, image: u8) {
    let grid = PatchGrid { frames: 1, height: 2, width: 2 * positions.len() };
    let medium = Arc::new(Medium { grid, pixels: vec![], hash: ContentHash([image; 32]) });
    let request = SequenceRequest {
        tokens: &[1, 1, 1, 1, 1, 1, 2],
        media: &[PromptMedium { positions, medium }],
        limits: Limits { max_tokens: 1, stop_tokens: vec![] },
        scope: Some(CacheScope([1; 32])),
        ..SequenceRequest::default()
    };
    scheduler.add(SequenceId(id), request).expect("the prompt fits");
}

#[test]
fn blocks_are_found_again_where_the_same_is_seen() {
    let mut scheduler = scheduler(16, 16);
    add_seeing(&mut scheduler, 0, 3..6, 7);
    assert_eq!(step(&mut scheduler), "0 0..7* (4)");
    add_seeing(&mut scheduler, 1, 3..6, 7);
    assert_eq!(step(&mut scheduler), "1 6..7* (4), -0", "the same image");
    add_seeing(&mut scheduler, 2, 3..6, 8);
    assert_eq!(step(&mut scheduler), "2 2..7* (4), -1", "another image: only what is before it");
    add_seeing(&mut scheduler, 3, 2..5, 7);
    assert_eq!(step(&mut scheduler), "3 2..7* (4), -2", "the same image a position earlier");
    add_seeing(&mut scheduler, 4, 0..1, 7);
    assert_eq!(step(&mut scheduler), "4 0..7* (4), -3", "text is no image");
}

/// A request of 4 tokens that generates 2, for a tenant, with a priority.
fn add_standing(scheduler: &mut Scheduler, id: u64, tenant: u64, priority: i32) {
    let request = SequenceRequest {
        tokens: &[1, 2, 3, 4],
        media: &[],
        limits: Limits { max_tokens: 2, stop_tokens: vec![] },
        standing: Standing { priority, tenant: Tenant(tenant) },
        scope: None,
        scores_prompt: false,
    };
    scheduler.add(SequenceId(id), request).expect("the prompt fits");
}

#[test]
fn a_flood_of_one_tenant_does_not_hold_up_another() {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        block_size: 2,
        block_count: 16,
        max_batch_tokens: 8,
        max_sequences: 1,
        max_context: 64,
        speculation: None,
    });
    for (id, tenant) in [1, 1, 1, 1, 2, 2, 2, 3].into_iter().enumerate() {
        add_standing(&mut scheduler, id as u64, tenant, 0);
    }
    let mut order = Vec::new();
    while scheduler.load().waiting > 0 {
        // Two steps each: the prompt, then one token.
        order.push(step(&mut scheduler).split(' ').next().map(str::to_owned).expect("an entry"));
        step(&mut scheduler);
    }
    assert_eq!(order, ["0", "4", "7", "1", "5", "2", "6", "3"], "equal accounts: the earlier arrival");
}

#[test]
fn the_urgent_take_the_place_of_the_patient() {
    let mut scheduler = scheduler(6, 16);
    add_standing(&mut scheduler, 0, 0, 5);
    add_standing(&mut scheduler, 1, 0, 5);
    assert_eq!(step(&mut scheduler), "0 0..4* (2), 1 0..4* (2)");
    add_standing(&mut scheduler, 2, 0, 0);
    assert_eq!(step(&mut scheduler), "2 0..4* (2), 0 4..5* (3)", "1 arrived last and is preempted");
    assert_eq!(step(&mut scheduler), "2 4..5* (3), -0");
    assert_eq!(step(&mut scheduler), "1 0..5* (3), -2");
    assert_eq!(scheduler.load().preemptions, 1);
}

/// One sequence that says 9 for ever, at a price of a row, in a cache of 16 blocks of 2.
fn repeating(max_rows: usize, row_cost: f64) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        block_size: 2,
        block_count: 16,
        max_batch_tokens: 64,
        max_sequences: 4,
        max_context: 64,
        speculation: Some(Speculation { max_draft: 3, max_rows, eager: false }),
    });
    scheduler.set_row_cost(row_cost);
    add(&mut scheduler, 0, 3, 12);
    scheduler
}

#[test]
fn a_repetition_is_drafted_up_to_the_last_token_but_one() {
    let mut scheduler = repeating(16, 0.0);
    assert_eq!(step(&mut scheduler), "0 0..3* (2)");
    assert_eq!(step(&mut scheduler), "0 3..4* (2)");
    assert_eq!(step(&mut scheduler), "0 4..5* (3)", "9 9 was never followed by anything");
    assert_eq!(step(&mut scheduler), "0 5..9*?3 (5)", "it was once; the rest goes on in circles");
    assert_eq!(step(&mut scheduler), "0 9..13*?3 (7)");
    assert_eq!(step(&mut scheduler), "0 13..14* (7)", "the twelfth and last token follows");
    let load = scheduler.load();
    assert_eq!((load.drafts, load.draft_tokens, load.accepted_tokens), (2, 6, 6));
    assert_eq!((load.blocks_used, load.blocks_free), (0, 16));
}

#[test]
fn a_wrong_draft_is_computed_over_and_not_shared() {
    let mut scheduler = repeating(16, 0.0);
    let request = SequenceRequest {
        tokens: &[9, 9, 5, 6, 9, 9],
        limits: Limits { max_tokens: 5, stop_tokens: vec![] },
        scope: Some(CacheScope([1; 32])),
        ..SequenceRequest::default()
    };
    scheduler.cancel(SequenceId(0));
    scheduler.add(SequenceId(1), request).expect("the prompt fits");
    assert_eq!(step(&mut scheduler), "1 0..9*?3 (5)", "5 6 9 is drafted, all wrong");
    assert_eq!(scheduler.load().accepted_tokens, 0);
    assert_eq!(step(&mut scheduler), "1 6..10*?3 (5)", "9 was sampled; what followed 9 9 last is now 9");
    assert_eq!(scheduler.load().accepted_tokens, 3);
    let wrong = SequenceRequest {
        tokens: &[9, 9, 5, 6, 9, 9, 5, 6, 9],
        scope: Some(CacheScope([1; 32])),
        ..SequenceRequest::default()
    };
    scheduler.add(SequenceId(3), wrong).expect("the prompt fits");
    assert_eq!(step(&mut scheduler), "3 6..9* (5), -1", "what was drafted after the prompt is not found");
}

#[test]
fn drafts_take_only_what_is_left() {
    let mut scheduler = repeating(4, 0.0);
    add(&mut scheduler, 1, 2, 12);
    for _ in 0..3 {
        step(&mut scheduler);
    }
    assert_eq!(step(&mut scheduler), "0 5..8*?2 (4), 1 4..5* (3)", "four rows, in order");
    add(&mut scheduler, 2, 8, 12);
    assert_eq!(
        step(&mut scheduler),
        "0 8..9* (5), 1 5..6* (3), 2 0..8* (4)",
        "more than four without drafts"
    );
    add(&mut scheduler, 3, 8, 12);
    assert_eq!(step(&mut scheduler), "0 9..10* (5), 1 6..8*?1 (4), 2 8..9* (5)", "3 waits: no new blocks");
}

#[test]
fn what_costs_a_whole_step_is_not_tried() {
    let mut scheduler = repeating(16, 1.0);
    while scheduler.load().running + scheduler.load().waiting > 0 {
        step(&mut scheduler);
    }
    assert_eq!(scheduler.load().drafts, 0);
}

#[test]
fn a_step_gives_so_many_scores_of_prompts_and_no_more() {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        block_size: 16,
        block_count: 64,
        max_batch_tokens: 512,
        max_sequences: 4,
        max_context: 512,
        speculation: None,
    });
    let tokens: Vec<u32> = (0..300).collect();
    for id in 0..2 {
        let request = SequenceRequest {
            tokens: &tokens,
            limits: Limits { max_tokens: 1, stop_tokens: vec![] },
            scope: Some(CacheScope([1; 32])),
            scores_prompt: true,
            ..SequenceRequest::default()
        };
        scheduler.add(SequenceId(id), request).expect("the prompt fits");
    }
    let mut steps = Vec::new();
    for _ in 0..5 {
        let plan = scheduler.plan_step();
        let scores = plan.entries.iter().map(|entry| (entry.sequence.0, entry.start, entry.scores.clone()));
        steps.push(scores.collect::<Vec<_>>());
        let samples = plan.entries.iter().filter(|entry| entry.samples);
        let samples: Vec<_> =
            samples.map(|entry| Sample { sequence: entry.sequence, token: Some(9) }).collect();
        scheduler.commit(&plan, &samples);
    }
    // Whoever finds nothing left still advances by a token. Its own prefix is in the cache by then, and computed again.
    let expected = [
        vec![(0, 0, 0..128), (1, 0, 0..1)],
        vec![(0, 128, 0..128), (1, 1, 0..1)],
        vec![(0, 256, 0..43), (1, 2, 0..85)],
        vec![(1, 87, 0..128)],
        vec![(1, 215, 0..84)],
    ];
    assert_eq!(steps, expected);
}

#[test]
fn nobody_finds_the_blocks_of_a_sequence_that_failed() {
    for fails in [false, true] {
        let mut scheduler = scheduler(16, 4);
        add_scoped(&mut scheduler, 0, 10, 4, Some(1));
        assert_eq!(step(&mut scheduler), "0 0..4 (2)");
        if fails {
            scheduler.fail(SequenceId(0));
        } else {
            scheduler.cancel(SequenceId(0));
        }
        scheduler.check_invariants();
        add_scoped(&mut scheduler, 1, 10, 4, Some(1));
        let next = step(&mut scheduler);
        assert!(next.starts_with(if fails { "1 0..4 " } else { "1 4..8 " }), "{next}");
    }
}
