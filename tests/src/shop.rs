//! A shop in a database of each kind: something of everything that a dump may get wrong, and everything that can be asked
//! about it afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use crate::mariadb::Mariadb;
use crate::postgres::{Cluster, USER};
use std::path::Path;
use std::process::Command;

/// What quoting gets wrong, if anything does.
pub const PASSWORD: &str = r#"pa:ss\wo"rd'# 7"#;

/// Makes the database `it's shop` with so many orders.
pub fn fill_postgresql(cluster: &Cluster, rows: u64) {
    cluster.run("create role clerk login");
    cluster.create_database("it's shop");
    cluster.run("alter database \"it's shop\" set work_mem = '7MB'");
    cluster.run("grant connect on database \"it's shop\" to clerk");
    let statements = [
        format!(
            "create table orders (id bigint primary key, customer text, paid boolean, total numeric(12,2), at timestamptz, \
             extra jsonb, picture bytea); \
             insert into orders select n, md5(n::text) || E'\\t\\\\ \\n\\u017c', n % 3 = 0, n * 1.25, \
             timestamptz '2026-01-01 00:00Z' + n * interval '1 second', \
             case when n % 5 = 0 then jsonb_build_object('n', n) end, decode(md5((n * 7)::text), 'hex') \
             from generate_series(1, {rows}) as n"
        ),
        "create table lines (order_id bigint references orders, note text not null); \
         insert into lines select n, 'line ' || n from generate_series(1, 500) as n; \
         create index on lines (order_id); alter table lines owner to clerk; grant select on orders to clerk"
            .to_owned(),
        "create sequence tickets start 41; select nextval('tickets'); \
         create view paid as select id from orders where paid; \
         create function twice(n bigint) returns bigint language sql as 'select 2 * n'; \
         select lo_from_bytea(4242, decode(repeat('00ff5c', 100000), 'hex'))"
            .to_owned(),
    ];
    for statement in statements {
        run_in_shop(cluster, &statement);
    }
}

/// Statements in the database `it's shop` that must succeed; what they give.
pub fn run_in_shop(cluster: &Cluster, sql: &str) -> String {
    let mut psql = cluster.command("psql");
    psql.arg("-h").arg(cluster.folder()).args(["-U", USER, "-qAt", "--set=ON_ERROR_STOP=1", "-d"]);
    let done = psql.arg("dbname='it\\'s shop'").args(["-c", sql]).output().unwrap();
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Everything that is in the database, as the server itself sees it.
pub fn state_of_shop(cluster: &Cluster) -> Vec<String> {
    let questions = [
        "select count(*), md5(string_agg(orders::text, ',' order by id)) from orders",
        "select md5(string_agg(lines::text, ',' order by order_id)) from lines",
        "select last_value, is_called from tickets",
        "select count(*) from paid",
        "select twice(21), md5(lo_get(4242))",
        "select relname, relkind, relowner::regrole, relacl from pg_class where relnamespace = 'public'::regnamespace order by 1",
        "select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace order by 1",
        "select datname, datdba::regrole, encoding, datcollate, datacl from pg_database where datname = current_database()",
        "select setconfig from pg_db_role_setting join pg_database on setdatabase = pg_database.oid where datname = current_database()",
        "select rolname, rolcanlogin from pg_roles where rolname = 'clerk'",
    ];
    questions.iter().map(|question| run_in_shop(cluster, question)).collect()
}

/// Makes the database `shop` with so many orders, and an account `clerk` that may read it.
pub fn fill_mariadb(server: &Mariadb, rows: u64) {
    server.run(&format!(
        "create database shop character set utf8mb4 collate utf8mb4_polish_ci; use shop;
         create table orders (id bigint primary key, customer varchar(80), total decimal(12,2), at timestamp(6) null,
           extra json, picture varbinary(64), key (customer)) engine=InnoDB;
         insert into orders select seq, concat(md5(seq), '\\t\\\\ \\n\\'\"ż\\0'), seq * 1.25,
           if(seq % 5, timestamp('2026-01-01 00:00:00.123456') + interval seq second, null),
           if(seq % 5, null, json_object('n', seq)), unhex(concat('00ff5c27', md5(seq * 7))) from seq_1_to_{rows};
         create table `od``d names` (id int auto_increment primary key, f float, order_id bigint,
           foreign key (order_id) references orders (id));
         insert into `od``d names` (f, order_id) select seq / 3, seq from seq_1_to_500;
         create view expensive as select id from orders where total > 1000;
         create function twice(n bigint) returns bigint deterministic return 2 * n;
         create trigger stamp before insert on orders for each row set new.total = coalesce(new.total, 7);
         create event nightly on schedule every 1 day do delete from orders where id < 0;
         create user clerk@localhost identified by '{password}'; grant select, lock tables, show view, trigger, event on shop.* to clerk@localhost",
        password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'"),
    ));
}

/// Everything that is in a database, as the server itself sees it.
pub fn state_of_mariadb(server: &Mariadb, database: &str) -> Vec<String> {
    let questions = [
        "select count(*), md5(group_concat(md5(concat_ws('|', id, hex(customer), total, ifnull(at, '-'), ifnull(extra, '-'), hex(picture))) order by id separator '')) from orders",
        "select md5(group_concat(concat_ws('|', id, f, order_id) order by id)) from `od``d names`",
        "select count(*), twice(21) from expensive",
        "show create table orders",
        "show create table `od``d names`",
        "show create trigger stamp",
        "show create event nightly",
    ];
    let ask = |question: &&str| {
        let said = server.run(&format!(
            "use {database}; set group_concat_max_len = 1073741824; set time_zone = '+00:00'; {question}"
        ));
        // When a trigger was made is not part of it.
        said.split('\t').filter(|field| !field.starts_with("20")).collect::<Vec<_>>().join("\t")
    };
    questions.iter().map(ask).collect()
}

/// What `sqlite3` gives on statements or a command.
pub fn ask_sqlite(path: &Path, sql: &str) -> String {
    let done = Command::new("sqlite3").args(["-batch", "-bail"]).arg(path).arg(sql).output().unwrap();
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
