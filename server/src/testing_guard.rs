//! Refuses to compile a server that is both optimised for use and open to tests.
#[cfg(all(feature = "testing", not(debug_assertions)))]
compile_error!(
    "the feature `testing` lets the clock be moved and the process be ended from outside; it must not be in a build without debug assertions"
);
