"""A participant in Python: the users of join-group, each of them in at most three groups."""
import json, os, sqlite3, time

import pika

URL = os.environ.get("AMQP_URL", "amqp://127.0.0.1:5672/%2F")
LIMIT = 3

db = sqlite3.connect(os.environ.get("DB", "users.db"), isolation_level=None)
db.executescript("""
    CREATE TABLE IF NOT EXISTS membership (user TEXT, grp TEXT, command TEXT, PRIMARY KEY (user, grp));
    CREATE TABLE IF NOT EXISTS barrier (command TEXT PRIMARY KEY, type TEXT, body TEXT);
""")


def acquire(command, user, group):
    """The rule, guarded in one place."""
    groups = [row[0] for row in db.execute("SELECT grp FROM membership WHERE user = ?", (user,))]
    if group in groups or len(groups) >= LIMIT:
        return "MembershipRefused", {"reason": f"{user} is in {', '.join(groups)} already"}
    db.execute("INSERT INTO membership VALUES (?, ?, ?)", (user, group, command))
    return "MembershipAcquired", {"user": user, "group": group}


def handle(kind, command, undoes, body):
    """The barrier: each command counts once, and not at all after its undo. Runs in one transaction."""
    if kind == "GiveUpMembership":
        too_late = json.dumps({"reason": "given up before it came"})
        db.execute("INSERT OR IGNORE INTO barrier VALUES (?, 'MembershipRefused', ?)", (undoes, too_late))
        db.execute("DELETE FROM membership WHERE command = ?", (undoes,))
        return "MembershipGivenUp", "{}"
    known = db.execute("SELECT type, body FROM barrier WHERE command = ?", (command,)).fetchone()
    if known:
        return known
    answer, fields = acquire(command, body["user"], body["group"])
    db.execute("INSERT INTO barrier VALUES (?, ?, ?)", (command, answer, json.dumps(fields)))
    return answer, json.dumps(fields)


def on_command(channel, delivery, properties, body):
    command, undoes = properties.correlation_id, (properties.headers or {}).get("saga-undoes")
    with db:  # commits, or takes everything back
        db.execute("BEGIN IMMEDIATE")
        answer, answer_body = handle(properties.type, command, undoes, json.loads(body))
    message_id = f"{command} {answer}"  # the same answer has the same id
    channel.basic_publish("events", answer, answer_body, pika.BasicProperties(
        type=answer, message_id=message_id, correlation_id=command, content_type="application/json", delivery_mode=2))
    channel.basic_ack(delivery.delivery_tag)


while True:
    try:
        channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
        channel.confirm_delivery()  # publishing waits until the broker has the answer
        for exchange in ("events", "commands"):
            channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_declare("users", durable=True)
        channel.queue_bind("users", "commands", "users.*")
        channel.basic_qos(prefetch_count=50)
        channel.basic_consume("users", on_command)
        channel.start_consuming()
    except pika.exceptions.AMQPError:
        time.sleep(1)  # the broker went away; what was not acknowledged comes again
