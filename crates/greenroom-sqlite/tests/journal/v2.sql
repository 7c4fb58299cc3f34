-- A journal of version 2 as release 0.1.0 wrote it, with a row of every kind: tasks in every state, one that has left
-- memory, accounts of parents with messages in every state, an account written as one row, a silenced parent, launch
-- keys, changes and timelines. Read by `earlier_release.rs`. All times are in the year 2100.
PRAGMA application_id = 1196576338;
PRAGMA user_version = 2;
CREATE TABLE changes (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    task TEXT NOT NULL,
    run INTEGER NOT NULL,
    from_status TEXT,
    record TEXT NOT NULL
);
INSERT INTO "changes" VALUES(1,4102444801000,'bg_00000001',1,NULL,'{"id":"bg_00000001","parentSessionID":"ses_parent","parentMessageID":"msg_parent","spawnDepth":1,"description":"find the slow tests","prompt":"","agent":"explore","status":"pending","queuedAt":"2100-01-01T00:00:01.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:01.000Z"},"parentModel":{"providerID":"anthropic","modelID":"claude-opus"},"parentAgent":"build","model":{"providerID":"openai","modelID":"gpt-5","variant":"high"},"concurrencyGroup":"openai/gpt-5","category":"quick","skills":["testing"],"directory":"/srv/app","permission":[{"permission":"edit","pattern":"*","action":"deny"}],"run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(2,4102444802000,'bg_00000002',1,NULL,'{"id":"bg_00000002","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000002","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:00:02.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:02.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(3,4102444803000,'bg_00000002',1,'pending','{"id":"bg_00000002","sessionID":"ses_two","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000002","prompt":"","agent":"general","status":"running","queuedAt":"2100-01-01T00:00:02.000Z","startedAt":"2100-01-01T00:00:03.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:02.000Z"},"concurrencyKey":"general","concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(4,4102444805000,'bg_00000002',1,'running','{"id":"bg_00000002","sessionID":"ses_two","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000002","prompt":"","agent":"general","status":"interrupt","queuedAt":"2100-01-01T00:00:02.000Z","startedAt":"2100-01-01T00:00:03.000Z","completedAt":"2100-01-01T00:00:05.000Z","error":"aborted from outside","note":"after one tool call","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:02.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(5,4102444806000,'bg_00000002',2,'interrupt','{"id":"bg_00000002","sessionID":"ses_two","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000002","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:00:06.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:02.000Z"},"concurrencyGroup":"general","run":2,"attempts":[],"formerParents":["ses_before"],"tracked":false}');
INSERT INTO "changes" VALUES(6,4102444807000,'bg_00000002',2,'pending','{"id":"bg_00000002","sessionID":"ses_two","parentSessionID":"ses_parent","parentMessageID":"msg_parent","rootSessionID":"ses_root","spawnDepth":2,"description":"task bg_00000002","prompt":"","agent":"general","status":"running","queuedAt":"2100-01-01T00:00:06.000Z","startedAt":"2100-01-01T00:00:07.000Z","progress":{"toolCalls":3,"lastTool":"bash","lastUpdate":"2100-01-01T00:00:08.000Z","lastMessage":"The build is slow.","lastMessageAt":"2100-01-01T00:00:08.000Z"},"parentAgent":"build","concurrencyKey":"general","concurrencyGroup":"general","directory":"/srv/app","run":2,"attempts":[{"run":1,"attempt":1,"sessionID":"ses_two","model":{"providerID":"openai","modelID":"gpt-5"},"startedAt":"2100-01-01T00:00:03.000Z","error":"aborted from outside"},{"run":2,"attempt":1}],"retrying":{"attempt":2,"message":"overloaded","until":"2100-01-01T00:00:20.000Z"},"asking":[{"id":"per_1","kind":"permission","what":"bash rm -r target","since":"2100-01-01T00:00:08.000Z"},{"id":"que_1","kind":"question","what":"Which branch?","since":"2100-01-01T00:00:09.000Z"}],"formerParents":["ses_before"],"tracked":true}');
INSERT INTO "changes" VALUES(10,4102444810000,'bg_00000003',1,NULL,'{"id":"bg_00000003","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000003","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:00:10.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:10.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(11,4102444811000,'bg_00000004',1,NULL,'{"id":"bg_00000004","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000004","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:00:11.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:11.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(12,4102444812000,'bg_00000005',1,NULL,'{"id":"bg_00000005","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000005","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:00:12.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:12.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(13,4102444816000,'bg_00000003',1,'running','{"id":"bg_00000003","sessionID":"ses_bg_00000003","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000003","prompt":"","agent":"general","status":"completed","queuedAt":"2100-01-01T00:00:10.000Z","startedAt":"2100-01-01T00:00:11.000Z","completedAt":"2100-01-01T00:00:16.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:10.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(14,4102444817000,'bg_00000004',1,'running','{"id":"bg_00000004","sessionID":"ses_bg_00000004","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000004","prompt":"","agent":"general","status":"error","queuedAt":"2100-01-01T00:00:11.000Z","startedAt":"2100-01-01T00:00:12.000Z","completedAt":"2100-01-01T00:00:17.000Z","error":"the provider failed","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:11.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(15,4102444818000,'bg_00000005',1,'pending','{"id":"bg_00000005","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000005","prompt":"","agent":"general","status":"cancelled","queuedAt":"2100-01-01T00:00:12.000Z","completedAt":"2100-01-01T00:00:18.000Z","error":"not needed any more","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:12.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(20,4102444880000,'bg_00000006',1,NULL,'{"id":"bg_00000006","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000006","prompt":"","agent":"general","status":"pending","queuedAt":"2100-01-01T00:01:20.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:01:20.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "changes" VALUES(21,4102444886000,'bg_00000006',1,'running','{"id":"bg_00000006","sessionID":"ses_bg_00000006","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000006","prompt":"","agent":"general","status":"completed","queuedAt":"2100-01-01T00:01:20.000Z","startedAt":"2100-01-01T00:01:21.000Z","completedAt":"2100-01-01T00:01:26.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:01:20.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
CREATE TABLE keys (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, task TEXT NOT NULL, record TEXT NOT NULL);
INSERT INTO "keys" VALUES(1,4102444801000,'bg_00000001','{"key":"launch-1","print":11938758762347925344,"task":"bg_00000001","at":"2100-01-01T00:00:01.000Z"}');
INSERT INTO "keys" VALUES(2,4102444801000,'bg_00000002','{"key":"launch-3","print":18339208582347035952,"task":"bg_00000002","at":"2100-01-01T00:00:01.000Z"}');
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY,
    parent TEXT NOT NULL,
    kind INTEGER NOT NULL,
    body TEXT NOT NULL
);
INSERT INTO "ledger" VALUES(1,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000001","run":1,"directory":"/srv/app"}}');
INSERT INTO "ledger" VALUES(2,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000002","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(3,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000002","run":2,"directory":null}}');
INSERT INTO "ledger" VALUES(4,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000003","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(5,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000004","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(6,'ses_parent',0,'{"joined":{"parent":"ses_parent","task":"bg_00000005","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(7,'ses_parent',0,'{"settled":{"parent":"ses_parent","told":{"fact":{"task":"bg_00000003","status":"completed","description":"task bg_00000003","duration":"5s"},"accepted":3,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}}}');
INSERT INTO "ledger" VALUES(8,'ses_parent',0,'{"settled":{"parent":"ses_parent","told":{"fact":{"task":"bg_00000004","status":"error","description":"task bg_00000004","duration":"5s","error":"the provider failed"},"accepted":4,"parentAgent":null,"parentModel":null}}}');
INSERT INTO "ledger" VALUES(9,'ses_parent',0,'{"left":["ses_parent","bg_00000005"]}');
INSERT INTO "ledger" VALUES(10,'ses_parent',0,'{"sending":{"parent":"ses_parent","posted":{"id":"ntc_00000001","facts":{"kind":"individual","tasks":[{"task":"bg_00000003","status":"completed","description":"task bg_00000003","duration":"5s"}],"remaining":2},"told":[{"fact":{"task":"bg_00000003","status":"completed","description":"task bg_00000003","duration":"5s"},"accepted":3,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:00:19.000Z","fate":"sending","at":"2100-01-01T00:00:20.000Z"}}}');
INSERT INTO "ledger" VALUES(11,'ses_parent',0,'{"fate":{"parent":"ses_parent","id":"ntc_00000001","fate":"delivered","at":"2100-01-01T00:00:21.000Z"}}');
INSERT INTO "ledger" VALUES(12,'ses_parent',0,'{"sending":{"parent":"ses_parent","posted":{"id":"ntc_00000002","facts":{"kind":"individual","tasks":[{"task":"bg_00000004","status":"error","description":"task bg_00000004","duration":"5s","error":"the provider failed"}],"remaining":2},"told":[{"fact":{"task":"bg_00000004","status":"error","description":"task bg_00000004","duration":"5s","error":"the provider failed"},"accepted":4,"parentAgent":null,"parentModel":null}],"since":"2100-01-01T00:00:21.000Z","fate":"sending","at":"2100-01-01T00:00:22.000Z"}}}');
INSERT INTO "ledger" VALUES(13,'ses_parent',0,'{"returned":["ses_parent","ntc_00000002"]}');
INSERT INTO "ledger" VALUES(14,'ses_owed',0,'{"joined":{"parent":"ses_owed","task":"bg_00000011","run":1,"directory":"/srv/lib"}}');
INSERT INTO "ledger" VALUES(15,'ses_owed',0,'{"settled":{"parent":"ses_owed","told":{"fact":{"task":"bg_00000011","status":"completed","description":"task bg_00000011","duration":"5s"},"accepted":30,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}}}');
INSERT INTO "ledger" VALUES(16,'ses_owed',0,'{"closed":{"parent":"ses_owed","posted":{"id":"ntc_00000011","facts":{"kind":"final","tasks":[{"task":"bg_00000011","status":"completed","description":"task bg_00000011","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000011","status":"completed","description":"task bg_00000011","duration":"5s"},"accepted":30,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:00:31.000Z","fate":"owed","at":"2100-01-01T00:00:32.000Z"},"tasks":["bg_00000011"]}}');
INSERT INTO "ledger" VALUES(17,'ses_owed',0,'{"fate":{"parent":"ses_owed","id":"ntc_00000011","fate":"sending","at":"2100-01-01T00:00:33.000Z"}}');
INSERT INTO "ledger" VALUES(18,'ses_owed',0,'{"fate":{"parent":"ses_owed","id":"ntc_00000011","fate":"owed","at":"2100-01-01T00:00:34.000Z"}}');
INSERT INTO "ledger" VALUES(19,'ses_sending',0,'{"joined":{"parent":"ses_sending","task":"bg_00000012","run":1,"directory":"/srv/lib"}}');
INSERT INTO "ledger" VALUES(20,'ses_sending',0,'{"settled":{"parent":"ses_sending","told":{"fact":{"task":"bg_00000012","status":"completed","description":"task bg_00000012","duration":"5s"},"accepted":40,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}}}');
INSERT INTO "ledger" VALUES(21,'ses_sending',0,'{"closed":{"parent":"ses_sending","posted":{"id":"ntc_00000012","facts":{"kind":"final","tasks":[{"task":"bg_00000012","status":"completed","description":"task bg_00000012","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000012","status":"completed","description":"task bg_00000012","duration":"5s"},"accepted":40,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:00:41.000Z","fate":"owed","at":"2100-01-01T00:00:42.000Z"},"tasks":["bg_00000012"]}}');
INSERT INTO "ledger" VALUES(22,'ses_sending',0,'{"fate":{"parent":"ses_sending","id":"ntc_00000012","fate":"sending","at":"2100-01-01T00:00:43.000Z"}}');
INSERT INTO "ledger" VALUES(23,'ses_dropped',0,'{"joined":{"parent":"ses_dropped","task":"bg_00000013","run":1,"directory":"/srv/lib"}}');
INSERT INTO "ledger" VALUES(24,'ses_dropped',0,'{"settled":{"parent":"ses_dropped","told":{"fact":{"task":"bg_00000013","status":"completed","description":"task bg_00000013","duration":"5s"},"accepted":50,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}}}');
INSERT INTO "ledger" VALUES(25,'ses_dropped',0,'{"closed":{"parent":"ses_dropped","posted":{"id":"ntc_00000013","facts":{"kind":"final","tasks":[{"task":"bg_00000013","status":"completed","description":"task bg_00000013","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000013","status":"completed","description":"task bg_00000013","duration":"5s"},"accepted":50,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:00:51.000Z","fate":"owed","at":"2100-01-01T00:00:52.000Z"},"tasks":["bg_00000013"]}}');
INSERT INTO "ledger" VALUES(26,'ses_dropped',0,'{"fate":{"parent":"ses_dropped","id":"ntc_00000013","fate":{"dropped":"its parent never took it"},"at":"2100-01-01T00:00:53.000Z"}}');
INSERT INTO "ledger" VALUES(27,'ses_gone',0,'{"joined":{"parent":"ses_gone","task":"bg_00000014","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(28,'ses_gone',0,'{"parentGone":["ses_gone","2100-01-01T00:01:01.000Z"]}');
INSERT INTO "ledger" VALUES(29,'ses_silenced',0,'{"silenced":["ses_silenced",true]}');
INSERT INTO "ledger" VALUES(30,'ses_whole',1,'{"directory":"/srv/whole","members":[{"task":"bg_00000021","run":1,"settled":null,"noted":false},{"task":"bg_00000022","run":3,"settled":{"fact":{"task":"bg_00000022","status":"interrupt","description":"task bg_00000022","duration":"5s","error":"aborted from outside"},"accepted":22,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}},"noted":true},{"task":"bg_00000023","run":1,"settled":{"fact":{"task":"bg_00000023","status":"completed","description":"task bg_00000023","duration":"5s"},"accepted":23,"parentAgent":null,"parentModel":null},"noted":false},{"task":"bg_0000002f","run":44,"settled":null,"noted":false}],"posted":[{"id":"ntc_00000021","facts":{"kind":"individual","tasks":[{"task":"bg_00000022","status":"interrupt","description":"task bg_00000022","duration":"5s","error":"aborted from outside"}],"remaining":1},"told":[],"since":"2100-01-01T00:01:11.000Z","fate":"delivered","at":"2100-01-01T00:01:13.000Z"},{"id":"ntc_00000022","facts":{"kind":"final","tasks":[{"task":"bg_00000020","status":"completed","description":"task bg_00000020","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000020","status":"completed","description":"task bg_00000020","duration":"5s"},"accepted":20,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:01:13.000Z","fate":"owed","at":"2100-01-01T00:01:14.000Z"},{"id":"ntc_00000023","facts":{"kind":"final","tasks":[{"task":"bg_00000019","status":"completed","description":"task bg_00000019","duration":"5s"}],"remaining":0},"told":[],"since":"2100-01-01T00:01:13.000Z","fate":{"dropped":"its parent never took it"},"at":"2100-01-01T00:01:15.000Z"}],"silenced":true}');
INSERT INTO "ledger" VALUES(31,'ses_whole',0,'{"left":["ses_whole","bg_0000002f"]}');
INSERT INTO "ledger" VALUES(32,'ses_whole',0,'{"joined":{"parent":"ses_whole","task":"bg_00000024","run":1,"directory":null}}');
INSERT INTO "ledger" VALUES(33,'ses_told',0,'{"joined":{"parent":"ses_told","task":"bg_00000006","run":1,"directory":"/work"}}');
INSERT INTO "ledger" VALUES(34,'ses_told',0,'{"settled":{"parent":"ses_told","told":{"fact":{"task":"bg_00000006","status":"completed","description":"task bg_00000006","duration":"5s"},"accepted":6,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}}}');
INSERT INTO "ledger" VALUES(35,'ses_told',0,'{"closed":{"parent":"ses_told","posted":{"id":"ntc_00000031","facts":{"kind":"final","tasks":[{"task":"bg_00000006","status":"completed","description":"task bg_00000006","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000006","status":"completed","description":"task bg_00000006","duration":"5s"},"accepted":6,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:01:26.000Z","fate":"owed","at":"2100-01-01T00:01:27.000Z"},"tasks":["bg_00000006"]}}');
INSERT INTO "ledger" VALUES(36,'ses_told',0,'{"sending":{"parent":"ses_told","posted":{"id":"ntc_00000031","facts":{"kind":"final","tasks":[{"task":"bg_00000006","status":"completed","description":"task bg_00000006","duration":"5s"}],"remaining":0},"told":[{"fact":{"task":"bg_00000006","status":"completed","description":"task bg_00000006","duration":"5s"},"accepted":6,"parentAgent":"build","parentModel":{"providerID":"anthropic","modelID":"claude-opus","variant":"max"}}],"since":"2100-01-01T00:01:26.000Z","fate":"sending","at":"2100-01-01T00:01:27.000Z"}}}');
INSERT INTO "ledger" VALUES(37,'ses_told',0,'{"fate":{"parent":"ses_told","id":"ntc_00000031","fate":"owed","at":"2100-01-01T00:01:29.000Z"}}');
INSERT INTO "ledger" VALUES(38,'ses_told',0,'{"fate":{"parent":"ses_told","id":"ntc_00000031","fate":"delivered","at":"2100-01-01T00:01:30.000Z"}}');
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "marks" VALUES('changes_gone',0);
INSERT INTO "marks" VALUES('place',150);
CREATE TABLE parents (
    parent TEXT PRIMARY KEY NOT NULL,
    settled INTEGER NOT NULL,
    silenced INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    most_entries INTEGER NOT NULL
);
INSERT INTO "parents" VALUES('ses_parent',0,0,4102444823000,13,100);
INSERT INTO "parents" VALUES('ses_owed',0,0,4102444834000,5,100);
INSERT INTO "parents" VALUES('ses_sending',0,0,4102444843000,4,100);
INSERT INTO "parents" VALUES('ses_dropped',1,0,4102444853000,4,100);
INSERT INTO "parents" VALUES('ses_gone',1,0,4102444861000,2,100);
INSERT INTO "parents" VALUES('ses_silenced',1,1,4102444862000,1,100);
INSERT INTO "parents" VALUES('ses_whole',0,1,4102444878000,2,100);
INSERT INTO "parents" VALUES('ses_told',1,0,4102444890000,6,100);
CREATE TABLE stories (
    subject TEXT NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (subject, line)
) WITHOUT ROWID;
INSERT INTO "stories" VALUES('bg_00000001',0,4102444801000,'accepted','queues under openai/gpt-5');
INSERT INTO "stories" VALUES('bg_00000002',0,4102444802000,'accepted','queues under general');
INSERT INTO "stories" VALUES('bg_00000002',1,4102444803000,'slot granted','run 1');
INSERT INTO "stories" VALUES('bg_00000002',2,4102444803000,'running','in session ses_two');
INSERT INTO "stories" VALUES('bg_00000002',3,4102444804000,'prompt accepted','run 1');
INSERT INTO "stories" VALUES('bg_00000002',4,4102444805000,'interrupt','aborted from outside; after one tool call');
INSERT INTO "stories" VALUES('bg_00000002',5,4102444806000,'resumed','run 2, queues under general');
INSERT INTO "stories" VALUES('bg_00000002',6,4102444807000,'slot granted','run 2');
INSERT INTO "stories" VALUES('bg_00000002',7,4102444807000,'running','in session ses_two');
INSERT INTO "stories" VALUES('bg_00000002',8,4102444808000,'prompt accepted','run 2');
INSERT INTO "stories" VALUES('bg_00000002',9,4102444808000,'asks','permission: bash rm -r target');
INSERT INTO "stories" VALUES('bg_00000003',0,4102444810000,'accepted','queues under general');
INSERT INTO "stories" VALUES('bg_00000003',1,4102444816000,'completed','');
INSERT INTO "stories" VALUES('bg_00000003',2,4102444820000,'telling the parent','ntc_00000001 note to ses_parent');
INSERT INTO "stories" VALUES('bg_00000004',0,4102444811000,'accepted','queues under general');
INSERT INTO "stories" VALUES('bg_00000004',1,4102444817000,'error','the provider failed');
INSERT INTO "stories" VALUES('bg_00000004',2,4102444822000,'telling the parent','ntc_00000002 note to ses_parent');
INSERT INTO "stories" VALUES('bg_00000005',0,4102444812000,'accepted','queues under general');
INSERT INTO "stories" VALUES('bg_00000005',1,4102444818000,'cancelled','not needed any more');
INSERT INTO "stories" VALUES('bg_00000005',2,4102444818000,'left its batch','ses_parent is not told');
INSERT INTO "stories" VALUES('bg_00000006',0,4102444880000,'accepted','queues under general');
INSERT INTO "stories" VALUES('bg_00000006',1,4102444886000,'completed','');
INSERT INTO "stories" VALUES('bg_00000006',2,4102444888000,'telling the parent','ntc_00000031 final message to ses_told');
INSERT INTO "stories" VALUES('bg_00000006',3,4102444891000,'left memory','');
INSERT INTO "stories" VALUES('bg_00000019',0,4102444874000,'telling the parent','ntc_00000023 final message to ses_whole');
INSERT INTO "stories" VALUES('bg_00000020',0,4102444874000,'telling the parent','ntc_00000022 final message to ses_whole');
INSERT INTO "stories" VALUES('bg_00000022',0,4102444872000,'telling the parent','ntc_00000021 note to ses_whole');
INSERT INTO "stories" VALUES('bg_0000002f',0,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',1,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',2,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',3,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',4,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',5,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',6,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',7,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',8,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',9,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',10,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',11,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',12,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',13,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',14,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',15,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',16,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',17,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',18,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',19,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',20,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',21,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',22,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',23,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',24,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',25,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',26,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',27,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',28,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',29,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',30,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',31,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',32,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',33,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',34,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',35,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',36,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',37,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',38,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',39,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',40,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',41,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',42,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',43,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('bg_0000002f',44,4102444877000,'left its batch','ses_whole is not told');
INSERT INTO "stories" VALUES('ntc_00000001',0,4102444821000,'parent told','ntc_00000001');
INSERT INTO "stories" VALUES('ntc_00000002',0,4102444823000,'message refused','the next one says it too');
INSERT INTO "stories" VALUES('ntc_00000011',0,4102444834000,'message not accepted','it is sent again');
INSERT INTO "stories" VALUES('ntc_00000013',0,4102444853000,'message given up','its parent never took it');
INSERT INTO "stories" VALUES('ntc_00000021',0,4102444873000,'parent told','ntc_00000021');
INSERT INTO "stories" VALUES('ntc_00000023',0,4102444875000,'message given up','its parent never took it');
INSERT INTO "stories" VALUES('ntc_00000031',0,4102444889000,'message not accepted','it is sent again');
INSERT INTO "stories" VALUES('ntc_00000031',1,4102444890000,'parent told','ntc_00000031');
CREATE TABLE tasks (
    id TEXT PRIMARY KEY NOT NULL,
    accepted INTEGER NOT NULL,
    age INTEGER NOT NULL,
    granted INTEGER,
    prompted INTEGER,
    aborted INTEGER,
    session TEXT,
    status TEXT NOT NULL,
    run INTEGER NOT NULL,
    left_at INTEGER,
    record TEXT NOT NULL
);
INSERT INTO "tasks" VALUES('bg_00000001',1,1,NULL,NULL,NULL,NULL,'pending',1,NULL,'{"id":"bg_00000001","parentSessionID":"ses_parent","parentMessageID":"msg_parent","spawnDepth":1,"description":"find the slow tests","prompt":"","agent":"explore","status":"pending","queuedAt":"2100-01-01T00:00:01.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:01.000Z"},"parentModel":{"providerID":"anthropic","modelID":"claude-opus"},"parentAgent":"build","model":{"providerID":"openai","modelID":"gpt-5","variant":"high"},"concurrencyGroup":"openai/gpt-5","category":"quick","skills":["testing"],"directory":"/srv/app","permission":[{"permission":"edit","pattern":"*","action":"deny"}],"run":1,"attempts":[],"tracked":false}');
INSERT INTO "tasks" VALUES('bg_00000002',2,6,2,2,1,'ses_two','running',2,NULL,'{"id":"bg_00000002","sessionID":"ses_two","parentSessionID":"ses_parent","parentMessageID":"msg_parent","rootSessionID":"ses_root","spawnDepth":2,"description":"task bg_00000002","prompt":"","agent":"general","status":"running","queuedAt":"2100-01-01T00:00:06.000Z","startedAt":"2100-01-01T00:00:07.000Z","progress":{"toolCalls":3,"lastTool":"bash","lastUpdate":"2100-01-01T00:00:08.000Z","lastMessage":"The build is slow.","lastMessageAt":"2100-01-01T00:00:08.000Z"},"parentAgent":"build","concurrencyKey":"general","concurrencyGroup":"general","directory":"/srv/app","run":2,"attempts":[{"run":1,"attempt":1,"sessionID":"ses_two","model":{"providerID":"openai","modelID":"gpt-5"},"startedAt":"2100-01-01T00:00:03.000Z","error":"aborted from outside"},{"run":2,"attempt":1}],"retrying":{"attempt":2,"message":"overloaded","until":"2100-01-01T00:00:20.000Z"},"asking":[{"id":"per_1","kind":"permission","what":"bash rm -r target","since":"2100-01-01T00:00:08.000Z"},{"id":"que_1","kind":"question","what":"Which branch?","since":"2100-01-01T00:00:09.000Z"}],"formerParents":["ses_before"],"tracked":true}');
INSERT INTO "tasks" VALUES('bg_00000003',3,10,NULL,NULL,NULL,'ses_bg_00000003','completed',1,NULL,'{"id":"bg_00000003","sessionID":"ses_bg_00000003","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000003","prompt":"","agent":"general","status":"completed","queuedAt":"2100-01-01T00:00:10.000Z","startedAt":"2100-01-01T00:00:11.000Z","completedAt":"2100-01-01T00:00:16.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:10.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "tasks" VALUES('bg_00000004',4,11,NULL,NULL,NULL,'ses_bg_00000004','error',1,NULL,'{"id":"bg_00000004","sessionID":"ses_bg_00000004","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000004","prompt":"","agent":"general","status":"error","queuedAt":"2100-01-01T00:00:11.000Z","startedAt":"2100-01-01T00:00:12.000Z","completedAt":"2100-01-01T00:00:17.000Z","error":"the provider failed","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:11.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "tasks" VALUES('bg_00000005',5,12,NULL,NULL,NULL,NULL,'cancelled',1,NULL,'{"id":"bg_00000005","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000005","prompt":"","agent":"general","status":"cancelled","queuedAt":"2100-01-01T00:00:12.000Z","completedAt":"2100-01-01T00:00:18.000Z","error":"not needed any more","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:00:12.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
INSERT INTO "tasks" VALUES('bg_00000006',6,80,NULL,NULL,NULL,'ses_bg_00000006','completed',1,4102444891000,'{"id":"bg_00000006","sessionID":"ses_bg_00000006","parentSessionID":"ses_parent","spawnDepth":1,"description":"task bg_00000006","prompt":"","agent":"general","status":"completed","queuedAt":"2100-01-01T00:01:20.000Z","startedAt":"2100-01-01T00:01:21.000Z","completedAt":"2100-01-01T00:01:26.000Z","progress":{"toolCalls":0,"lastUpdate":"2100-01-01T00:01:20.000Z"},"concurrencyGroup":"general","run":1,"attempts":[],"tracked":false}');
CREATE TABLE texts (
    task TEXT NOT NULL,
    run INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    skill_content TEXT,
    UNIQUE (task, run)
);
INSERT INTO "texts" VALUES('bg_00000001',1,'Find the five slowest tests.','Run the tests twice.');
INSERT INTO "texts" VALUES('bg_00000002',1,'Do bg_00000002.',NULL);
INSERT INTO "texts" VALUES('bg_00000002',2,'Go on.',NULL);
INSERT INTO "texts" VALUES('bg_00000003',1,'Do bg_00000003.',NULL);
INSERT INTO "texts" VALUES('bg_00000004',1,'Do bg_00000004.',NULL);
INSERT INTO "texts" VALUES('bg_00000005',1,'Do bg_00000005.',NULL);
INSERT INTO "texts" VALUES('bg_00000006',1,'Do bg_00000006.',NULL);
CREATE INDEX tasks_session ON tasks (session) WHERE session IS NOT NULL;
CREATE INDEX ledger_parent ON ledger (parent, seq);
CREATE INDEX keys_task ON keys (task);
CREATE INDEX tasks_live ON tasks (accepted) WHERE left_at IS NULL;
CREATE INDEX tasks_left ON tasks (left_at) WHERE left_at IS NOT NULL;
CREATE INDEX changes_at ON changes (at);
CREATE INDEX parents_open ON parents (parent) WHERE settled = 0 OR silenced = 1;
CREATE INDEX parents_settled ON parents (changed_at) WHERE settled = 1;
