//! What a history does step by step: uploads, states of snapshots, stops and starts, restores, upkeep.

use super::*;

impl History {
    pub(super) fn some_snapshots(&mut self, most: usize) -> Vec<SnapshotId> {
        let all: Vec<SnapshotId> = self.model.snapshots.keys().copied().collect();
        let mut chosen: Vec<SnapshotId> =
            (0..1 + self.rng.below(most)).filter_map(|_| self.rng.pick(&all).copied()).collect();
        chosen.sort();
        chosen.dedup();
        chosen
    }

    pub(super) fn held(&self, ids: &[SnapshotId]) -> bool {
        let now_ns = self.now_ns();
        ids.iter().any(|id| self.model.snapshots[id].hold_until_ns.is_some_and(|until_ns| until_ns > now_ns))
    }

    pub(super) fn delete(&mut self) -> Outcome {
        self.verb = "delete";
        let ids = self.some_snapshots(3);
        // A hold that came after a delete does not stand in the way of the same delete asked again.
        let fresh: Vec<SnapshotId> =
            ids.iter().filter(|id| self.model.snapshots[*id].deleted_until_ns.is_none()).copied().collect();
        let until_ns = self.now_ns() + self.rng.below(48) as i64 * HOUR_NS;
        match self.store.delete_snapshots(&VAULT, &ids, until_ns, "somebody") {
            Ok(()) if self.held(&fresh) => return Err("a held snapshot was deleted".into()),
            Ok(()) => {}
            Err(StoreError::Held { .. }) if self.held(&fresh) => return Ok(()),
            Err(error) => return Err(text(error)),
        }
        self.change(|model| {
            for id in &ids {
                if let Some(snapshot) = model.snapshots.get_mut(id) {
                    snapshot.deleted_until_ns.get_or_insert(until_ns);
                }
            }
        });
        Ok(())
    }

    pub(super) fn undelete(&mut self) -> Outcome {
        self.verb = "undelete";
        let deleted: Vec<SnapshotId> = self
            .model
            .snapshots
            .iter()
            .filter(|(_, snapshot)| snapshot.deleted_until_ns.is_some())
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = self.rng.pick(&deleted).copied() else { return Ok(()) };
        self.store.undelete_snapshot(&VAULT, &id).map_err(text)?;
        self.change(|model| {
            if let Some(snapshot) = model.snapshots.get_mut(&id) {
                snapshot.deleted_until_ns = None;
            }
        });
        Ok(())
    }

    pub(super) fn purge(&mut self) -> Outcome {
        self.verb = "purge";
        let ids = self.some_snapshots(4);
        match self.store.purge_snapshots(&VAULT, &ids) {
            Ok(_) if self.held(&ids) => return Err("a held snapshot was purged".into()),
            Ok(gone) if gone == ids.len() as u64 || self.options.patient => {}
            Ok(gone) => return Err(format!("{gone} snapshots went instead of {}", ids.len())),
            Err(StoreError::Held { .. }) if self.held(&ids) => return Ok(()),
            Err(error) => return Err(text(error)),
        }
        self.change(|model| model.snapshots.retain(|id, _| !ids.contains(id)));
        Ok(())
    }

    pub(super) fn hold(&mut self) -> Outcome {
        self.verb = "hold";
        let Some(id) = self.some_snapshots(1).first().copied() else { return Ok(()) };
        let until_ns =
            if self.rng.chance(30) { None } else { Some(self.now_ns() + self.rng.below(3) as i64 * HOUR_NS) };
        let may_shorten = self.rng.chance(70);
        let info = match self.store.hold_snapshot(&VAULT, &id, until_ns, may_shorten) {
            Ok(info) => info,
            Err(StoreError::Held { .. }) if !may_shorten && self.held(&[id]) => return Ok(()),
            Err(error) => return Err(text(error)),
        };
        self.change(|model| {
            if let Some(snapshot) = model.snapshots.get_mut(&id) {
                snapshot.hold_until_ns = info.hold_until_ns;
            }
        });
        Ok(())
    }

    pub(super) fn tag(&mut self) -> Outcome {
        self.verb = "tag";
        let Some(id) = self.some_snapshots(1).first().copied() else { return Ok(()) };
        let tags: Vec<String> = (0..self.rng.below(3)).map(|number| format!("tag-{number}")).collect();
        self.store.tag_snapshot(&VAULT, &id, &tags).map_err(text)?;
        self.change(|model| {
            if let Some(snapshot) = model.snapshots.get_mut(&id) {
                snapshot.tags = Some(tags);
            }
        });
        Ok(())
    }

    /// Stops in order and starts again. Power stays on: what was not synced is still in memory.
    pub(super) fn close(&mut self) -> Outcome {
        self.verb = "close";
        self.store.close().map_err(text)?;
        self.release()?;
        self.reopen(&Expected::exactly(&self.model))
    }

    /// Starts again without having stopped.
    pub(super) fn kill(&mut self) -> Outcome {
        self.verb = "kill";
        if let Ground::Mounted(_) = self.options.ground {
            // What the old process still does as it is taken down happens to another disk.
            self.disk = Disk::with_sites(self.disk.volume(), self.options.sites.clone());
            self.disk.watch();
        }
        self.reopen(&Expected::exactly(&self.model))
    }

    /// Makes the index again from packs and journals. What sessions held was only there.
    pub(super) fn rebuild(&mut self) -> Outcome {
        self.verb = "rebuild";
        self.store.close().map_err(text)?;
        self.release()?;
        let (seed, now_ns) = (self.rng.next(), self.now_ns());
        let ground = self.options.ground.clone();
        ground
            .rebuild(&self.disk, seed, now_ns, self.pack_bytes_target)
            .map_err(|error| format!("rebuild: {}", text(error)))?;
        self.uploads.clear();
        self.change(|model| {
            model.sessions.clear();
            model.restores.clear();
        });
        self.reopen(&Expected::exactly(&self.model))
    }

    pub(super) fn begin_restore(&mut self) -> Outcome {
        self.verb = "begin restore";
        let usable: Vec<SnapshotId> = self
            .model
            .snapshots
            .iter()
            .filter(|(_, snapshot)| snapshot.deleted_until_ns.is_none())
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = self.rng.pick(&usable).copied() else { return Ok(()) };
        let restore = self.store.begin_restore(&VAULT, &id).map_err(text)?;
        let now_ns = self.now_ns();
        self.change(|model| {
            let root = model.snapshots[&id].tree.root.into();
            model.restores.insert(restore, (root, now_ns));
        });
        Ok(())
    }

    pub(super) fn end_restore(&mut self) -> Outcome {
        self.verb = "end restore";
        let running: Vec<_> = self.model.restores.keys().copied().collect();
        let Some(restore) = self.rng.pick(&running).copied() else { return Ok(()) };
        self.store.end_restore(&VAULT, &restore).map_err(text)?;
        // A crash may bring it back, until it ends by itself.
        self.expired_restores.push(restore);
        self.change(|model| {
            model.restores.remove(&restore);
        });
        Ok(())
    }

    /// Some steps of collection, or all there are.
    pub(super) fn maintain(&mut self) -> Outcome {
        self.verb = "maintain";
        let now_ns = self.now_ns();
        if self.rng.chance(30) {
            Self::run_dry(&self.store, now_ns)?;
        } else {
            for _ in 0..1 + self.rng.below(3) {
                self.store.maintain(&VAULT, now_ns).map_err(text)?;
            }
        }
        self.settle_time()
    }

    /// What ended because time passed, and only that, has ended.
    pub(super) fn settle_time(&mut self) -> Outcome {
        let now_ns = self.now_ns();
        let listed: HashSet<SnapshotId> =
            self.store.snapshots(&VAULT).map_err(text)?.iter().map(|info| info.snapshot).collect();
        for (id, snapshot) in self.model.snapshots.iter().filter(|(id, _)| !listed.contains(*id)) {
            let due = snapshot.deleted_until_ns.is_some_and(|until_ns| until_ns <= now_ns);
            if !due || self.held(&[*id]) {
                return Err(format!("snapshot {id} was removed before its time"));
            }
        }
        let (idle, live): (Vec<Upload>, Vec<Upload>) = std::mem::take(&mut self.uploads)
            .into_iter()
            .partition(|upload| self.store.upload_session(&VAULT, &upload.session).is_err());
        self.uploads = live;
        if let Some(upload) = idle.iter().find(|upload| now_ns - upload.touched_ns < IDLE_NS) {
            return Err(format!("upload session {} ended before its time", upload.session));
        }
        let ended: Vec<_> = self
            .model
            .restores
            .iter()
            .filter(|(restore, _)| self.store.touch_restore(&VAULT, restore).is_err())
            .map(|(restore, (_, touched_ns))| (*restore, *touched_ns))
            .collect();
        if ended.iter().any(|(_, touched_ns)| now_ns - touched_ns < IDLE_NS) {
            return Err("a restore ended before its time".into());
        }
        // A session may live whose agent never heard of it, because power went before the answer.
        let gone: Vec<UploadSessionId> = self
            .model
            .sessions
            .keys()
            .filter(|session| self.store.upload_session(&VAULT, session).is_err())
            .copied()
            .collect();
        self.expired.extend(&gone);
        self.expired_restores.extend(ended.iter().map(|(restore, _)| *restore));
        self.change(|model| {
            model.snapshots.retain(|id, _| listed.contains(id));
            model.sessions.retain(|id, _| !gone.contains(id));
            model.restores.retain(|id, _| !ended.iter().any(|(restore, _)| restore == id));
            for (_, touched_ns) in model.restores.values_mut() {
                *touched_ns = now_ns;
            }
        });
        Ok(())
    }

    /// Hours go by.
    pub(super) fn pass_time(&mut self) -> Outcome {
        self.verb = "pass time";
        let hours = [60, 25, 25, 1 + self.rng.below(6) as i64][self.rng.below(4)];
        self.clock.0.fetch_add(hours * HOUR_NS, Ordering::Relaxed);
        self.store.confirm_clock().map_err(text)?;
        let confirmed_ns = self.now_ns();
        self.change(|model| model.confirmed_ns = confirmed_ns);
        self.maintain()
    }

    pub(super) fn scrub(&mut self) -> Outcome {
        self.verb = "scrub";
        let bytes = 1 + self.rng.below(8000) as u64;
        self.store.scrub_step(&VAULT, self.now_ns(), bytes).map_err(text)?;
        if self.store.damaged_objects(&VAULT).map_err(text)? != 0 {
            return Err("scrub found damage on a sound disk".into());
        }
        Ok(())
    }

    pub(super) fn audit(&mut self) -> Outcome {
        self.verb = "audit";
        let report = self.store.audit(&VAULT, AuditRepair::TooLow, || true).map_err(text)?;
        let wrong = [report.too_low, report.too_high, report.missing, report.unreadable_nodes, report.miscounted];
        if wrong != [0; 5] {
            return Err(format!("the audit found drift: {report:?}"));
        }
        Ok(())
    }

    /// Sends again what is stored: nothing may come of it.
    pub(super) fn duplicate(&mut self) -> Outcome {
        let at = self.upload()?;
        self.verb = "send again";
        let upload = self.uploads[at].clone();
        let chunks = self.objects(&upload.tree.chunks[..upload.acknowledged]);
        self.store.put_chunks(&VAULT, &upload.session, &chunks).map_err(text)?;
        Ok(())
    }

    pub(super) fn begin(&mut self) -> Outcome {
        self.verb = "begin";
        if self.uploads.len() >= 4 {
            return self.commit();
        }
        let usable: Vec<(SnapshotId, Arc<Tree>)> = self
            .model
            .snapshots
            .iter()
            .filter(|(_, snapshot)| snapshot.deleted_until_ns.is_none())
            .map(|(id, snapshot)| (*id, snapshot.tree.clone()))
            .collect();
        let base = if self.rng.chance(80) { self.rng.pick(&usable).cloned() } else { None };
        let base_tree = match &base {
            Some((_, tree)) => Some(tree.clone()),
            None => self.rng.pick(&self.trees).cloned(),
        };
        let tree = Arc::new(tree(&self.keys, &mut self.rng, base_tree.as_deref(), &mut self.universe));
        let (session, incarnation) =
            self.store.begin_upload(&VAULT, "computer", "series", base.as_ref().map(|(id, _)| id)).map_err(text)?;
        self.trees.push(tree.clone());
        self.uploads.push(Upload {
            session,
            tree,
            incarnation,
            sent: 0,
            acknowledged: 0,
            nodes: 0,
            touched_ns: self.now_ns(),
        });
        let base_root = base.map(|(_, tree)| tree.root.into());
        self.change(|model| {
            model.sessions.insert(session, Session { base_root, ..Session::default() });
        });
        Ok(())
    }

    /// An upload to go on with, by its place in the list.
    pub(super) fn upload(&mut self) -> Result<usize, String> {
        if self.uploads.is_empty() {
            self.begin()?;
        }
        let at = self.rng.below(self.uploads.len());
        self.uploads[at].touched_ns = self.now_ns();
        Ok(at)
    }

    pub(super) fn put(&mut self) -> Outcome {
        let at = self.upload()?;
        self.verb = "put chunks";
        let upload = self.uploads[at].clone();
        let end = (upload.sent + 1 + self.rng.below(12)).min(upload.tree.chunks.len());
        let ids = &upload.tree.chunks[upload.sent..end];
        let (have, incarnation) = self.store.have(&VAULT, &upload.session, ids).map_err(text)?;
        let missing: Vec<ObjectId> = ids.iter().zip(&have).filter(|(_, have)| !**have).map(|(id, _)| *id).collect();
        let received = self.store.put_chunks(&VAULT, &upload.session, &self.objects(&missing)).map_err(text)?;
        let upload = &mut self.uploads[at];
        if upload.incarnation != incarnation || received.incarnation != incarnation {
            upload.incarnation = received.incarnation;
            upload.sent = upload.acknowledged;
        } else {
            upload.sent = end;
        }
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, at: usize, nodes: usize, all: bool) {
        let upload = &mut self.uploads[at];
        if all {
            upload.acknowledged = upload.sent;
        }
        upload.nodes = nodes;
        let upload = upload.clone();
        self.change(|model| {
            if let Some(session) = model.sessions.get_mut(&upload.session) {
                session.durable.extend(&upload.tree.chunks[..upload.acknowledged]);
                session.durable.extend(&upload.tree.nodes[..upload.nodes]);
            }
        });
    }

    pub(super) fn flush(&mut self) -> Outcome {
        let at = self.upload()?;
        self.verb = "flush";
        let upload = self.uploads[at].clone();
        match self.store.flush(&VAULT, &upload.session, upload.incarnation) {
            Ok(_) => self.acknowledge(at, upload.nodes, true),
            Err(StoreError::IncarnationChanged { incarnation }) => {
                self.uploads[at].incarnation = incarnation;
                self.uploads[at].sent = upload.acknowledged;
            }
            Err(error) => return Err(text(error)),
        }
        Ok(())
    }

    pub(super) fn nodes(&mut self) -> Outcome {
        let at = self.upload()?;
        if self.uploads[at].sent < self.uploads[at].tree.chunks.len() {
            return self.put();
        }
        self.verb = "put nodes";
        let upload = self.uploads[at].clone();
        let end = (upload.nodes + 1 + self.rng.below(4)).min(upload.tree.nodes.len());
        let ids = upload.tree.nodes[upload.nodes..end].to_vec();
        match self.store.put_nodes(&VAULT, &upload.session, &self.objects(&ids)) {
            Ok(durable) => self.acknowledge(at, end, durable.incarnation == upload.incarnation),
            // Whatever was received or reported present since the start is claimed, and stays.
            Err(StoreError::Missing(missing)) => {
                let durable = &self.model.sessions[&upload.session].durable;
                let broken = missing.iter().filter(|id| durable.contains(*id)).count();
                // A pack that was given up takes along what was only received.
                if !self.options.patient || broken > 0 {
                    return Err(format!("claimed objects are missing, {broken} of them acknowledged: {missing:?}"));
                }
                self.uploads[at].sent = upload.acknowledged;
            }
            Err(error) => return Err(text(error)),
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Outcome {
        let at = self.upload()?;
        let upload = self.uploads[at].clone();
        if upload.nodes < upload.tree.nodes.len() {
            return self.nodes();
        }
        self.verb = "commit";
        let input = CommitInput { root: upload.tree.root, summary_json: Vec::new() };
        let info = self.store.commit(&VAULT, &upload.session, &input).map_err(text)?;
        self.uploads.remove(at);
        let snapshot = Snapshot {
            tree: upload.tree,
            session: upload.session,
            deleted_until_ns: None,
            hold_until_ns: None,
            tags: None,
        };
        self.change(|model| {
            model.sessions.remove(&upload.session);
            model.snapshots.insert(info.snapshot, snapshot);
        });
        Ok(())
    }

    pub(super) fn abort(&mut self) -> Outcome {
        self.verb = "abort";
        if self.uploads.is_empty() {
            return Ok(());
        }
        let at = self.upload()?;
        let upload = self.uploads.remove(at);
        match self.store.abort_upload(&VAULT, &upload.session) {
            Err(StoreError::NoSuchSession(_)) if self.options.patient => {}
            aborted => aborted.map_err(text)?,
        }
        self.change(|model| {
            model.sessions.remove(&upload.session);
        });
        Ok(())
    }
}
