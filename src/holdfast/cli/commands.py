"""Every command by its heading, with its line in the overview; a command's module is loaded when it is asked for."""

from holdfast.cli.shell import Shell

COMMANDS = Shell(
    name="holdfast",
    help="The storage layer for AI agents: write at local-disk speed, visible everywhere, never lost.",
    epilog="Start with `holdfast demo`, or `holdfast init` and `holdfast put KEY VALUE`. `holdfast COMMAND --help` has"
    " examples. Exit codes: 0 ok, 1 failed, 2 usage, 3 partial, 4 denied, 5 not found, 6 conflict, 7 hub unreachable,"
    " 8 full, 9 integrity, 10 no store, 11 locked, 12 object store failed, 130 interrupted.",
    rooms={
        "Begin": {
            "init": ("setup", "make a store on this machine"),
            "demo": ("demo.command", "see the whole thing at work, hub killed half-way"),
            "serve": ("serving", "run a hub"),
            "mcp": ("mcp", "give assistants a memory: an MCP server"),
            "status": ("health", "what is here, what is not at the hub yet"),
            "doctor": ("health", "find out what is wrong with this machine's setup"),
            "metrics": ("health", "this machine's figures, for Prometheus"),
            "version": ("setup", "versions of holdfast and what it stands on"),
            "completion": ("setup", "print the completion script of a shell"),
        },
        "Data": {
            "put": ("data", "set a key"),
            "get": ("data", "read a key, as it is or as it was"),
            "ls": ("data", "list keys, collections or agents"),
            "rm": ("data", "take a key's value away; its history stays"),
            "history": ("past", "every version of a key"),
            "diff": ("past", "what changed between two versions"),
            "rollback": ("past", "make an earlier version the newest"),
            "search": ("find", "find what agents know, by words or by meaning"),
            "watch": ("talk", "follow changes live"),
            "export": ("moves", "write every version as JSON Lines"),
            "import": ("moves", "read conversations, or an export, into the store"),
            "follow": ("follow", "keep coding agents' transcripts as they grow, as sessions"),
            "sessions": ("sessions", "list and read sessions, and give a tool its files back"),
        },
        "Messages": {
            "send": ("talk", "post a message to people or an agent"),
            "inbox": ("talk", "read messages"),
            "ack": ("mail", "take messages on"),
            "done": ("mail", "say that a message is done, and what came of it"),
            "reply": ("mail", "answer a message, in its thread"),
            "snooze": ("mail", "have messages come back later"),
            "archive": ("mail", "put messages away; they stay findable"),
            "reopen": ("mail", "take back whatever was said of messages"),
            "ask": ("mail", "ask people or an agent, and wait for the answer"),
            "answer": ("mail", "answer a question"),
            "sent": ("mail", "what you sent, and what became of it"),
        },
        "Admin": {
            "token": ("tokens", "who may ask this hub: make, list and revoke tokens"),
            "ui": ("ui", "the hub's pages: make a link that signs somebody in"),
            "nodes": ("nodes", "how the nodes of a hub stand; pause, resume or forget one"),
            "notify": ("notify", "whom this hub tells of messages: rules, tests, what was given up"),
            "config": ("config", "what is configured, by whom, and what is wrong with it"),
            "retention": ("retention", "how much of each agent's log stays on this machine"),
            "index": ("index", "indexes of vectors: how they stand, and what fills them"),
            "compact": ("retention", "give free room in the files back to the disk"),
            "archives": ("archive", "old records in compressed files that anybody can read"),
            "migrate": ("migrate", "take a hub to a PostgreSQL database, or back"),
        },
        "Trust": {
            "verify": ("trust", "prove every record of this store"),
            "scan": ("trust", "look at what is new, and at the next share of all"),
            "erase": ("erasure", "erase a subject, or a key, for good"),
            "keys": ("erasure", "the keys of sealed collections"),
            "backup": ("backup", "back up a node or a hub, prove it, bring it back"),
            "repair": ("repair", "put right what is damaged, as far as it can be proven"),
            "quarantine": ("repair", "what was damaged, kept as it was found"),
        },
    },
)
