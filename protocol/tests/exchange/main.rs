//! Both machines against each other, over a line that loses connections, flips bits and mixes channels,
//! and from chunks that are at hand in an order of their own. What must hold is checked by the scene itself:
//! what lands is what was in scope, nothing more, and both sides' numbers agree.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end it where they fail")]

mod hostile;
mod scene;

use proptest::prelude::*;
use scene::{FileSpec, Scene, Trouble};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_quiet_line_carries_everything_once(files in files(), seed: u64) {
        let mut scene = Scene::new(files, seed, Trouble::default());
        scene.run();
        prop_assert_eq!(scene.connections, 1);
        prop_assert_eq!(scene.resent_chunks, 0);
    }

    #[test]
    fn a_line_that_breaks_anywhere_resumes_from_what_was_durable(files in files(), seed: u64, breaks in 1u32..6) {
        let mut scene = Scene::new(files, seed, Trouble { breaks, ..Trouble::default() });
        scene.run();
        prop_assert!(scene.rewritten_durable == 0, "a durable chunk was written again");
    }

    #[test]
    fn flipped_bits_are_asked_again_and_never_landed(files in files(), seed: u64, flips in 1u32..8) {
        let mut scene = Scene::new(files, seed, Trouble { flips, ..Trouble::default() });
        scene.run();
        prop_assert_eq!(scene.flipped, scene.bad_chunks);
    }

    #[test]
    fn files_that_change_while_they_are_read_land_whole_or_are_left_out(files in files(), seed: u64, changes in 1u32..8) {
        let mut scene = Scene::new(files, seed, Trouble { changes, ..Trouble::default() });
        scene.run();
    }

    #[test]
    fn all_troubles_at_once_still_end_in_one_landing(
        files in files(), seed: u64, breaks in 0u32..4, flips in 0u32..4, changes in 0u32..4
    ) {
        let mut scene = Scene::new(files, seed, Trouble { breaks, flips, changes, refuse_names: true });
        scene.run();
    }

    #[test]
    fn chunks_in_an_order_of_their_own_are_each_sent_when_their_turn_has_come(files in files(), seed: u64) {
        scene::in_an_order_of_its_own(files, seed);
    }

    #[test]
    fn hostile_frames_end_in_an_error_and_never_in_a_panic(files in files(), seed: u64) {
        hostile::attack(files, seed);
    }
}

/// A folder of few files: the sizes around the edges of chunks, known or unknown roots, links, directories, bad names.
fn files() -> impl Strategy<Value = Vec<FileSpec>> {
    const MIB: u64 = 1 << 20;
    let size = prop_oneof![
        3 => 0..2000u64,
        1 => Just(0),
        1 => Just(MIB),
        1 => MIB + 1..2 * MIB,
        1 => Just(2 * MIB),
        1 => 2 * MIB..5 * MIB,
    ];
    let file = (size, any::<bool>(), 0..12u8).prop_map(|(size, cached, kind)| FileSpec { size, cached, kind });
    prop::collection::vec(file, 0..12)
}
