-- Deletions whose traces in the files of the database are not overwritten yet: one row for each, written with the
-- deletion, removed when the files have been seen to.
CREATE TABLE remains (
    number BIGINT NOT NULL PRIMARY KEY
);
