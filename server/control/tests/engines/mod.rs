//! The same test on both engines: `on_each_engine! { a_test, another }` runs `async fn a_test(control: Control)` on a
//! SQLite file of its own, and all of them on one PostgreSQL cluster, each in a database of its own.

#[path = "../../../../tests/src/postgres.rs"]
#[allow(dead_code, reason = "the tests of the database plans use more of it")]
mod postgres;

use control::Control;
use std::future::Future;
use std::pin::Pin;

/// A test and its name.
pub type Case = (&'static str, fn(Control) -> Pin<Box<dyn Future<Output = ()>>>);

/// Runs every case on PostgreSQL, naming the one that is running, so that a failure says which.
pub async fn on_postgres(cases: &[Case]) {
    let cluster = postgres::Cluster::start();
    for (name, case) in cases {
        eprintln!("on PostgreSQL: {name}");
        cluster.create_database(name);
        let control = Control::open_url(&cluster.url(name)).await.unwrap();
        case(control.clone()).await;
        control.close().await;
    }
}

/// A file database that lives as long as the folder.
pub async fn sqlite() -> (tempfile::TempDir, Control) {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("control.sqlite")).await.unwrap();
    (folder, control)
}

/// One test per case on SQLite, and one for all on PostgreSQL.
#[macro_export]
macro_rules! on_each_engine {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                let (_folder, control) = $crate::engines::sqlite().await;
                super::$case(control).await;
            })+
        }

        #[tokio::test]
        async fn postgres() {
            let cases: &[$crate::engines::Case] = &[$((stringify!($case), |control| Box::pin($case(control)))),+];
            $crate::engines::on_postgres(cases).await;
        }
    };
}
