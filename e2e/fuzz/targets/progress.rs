//! See the table of subjects.
#![no_main]

checkpoint_operator_fuzz::target!();
