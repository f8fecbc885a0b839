//! Runs, levels, merged rows and reads of views, against sorted maps.

mod model;
mod order;
mod rows;
mod view;
