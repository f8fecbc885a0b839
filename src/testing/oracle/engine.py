"""Answers SQL queries over exported tables with DuckDB.

Reads a plan as JSON from standard input:
    {"tables": [{"name", "columns": [[name, type], ..], "file"}], "queries": [{"view", "sql", "file"}]}
and writes the rows of each query to its file as JSON objects, one a line. Prints a JSON object a query:
    {"view", "ms"} or {"view", "error"}.
Exits with 3 if there is no DuckDB.
"""

import json
import sys
import time

try:
    import duckdb
except ImportError:
    sys.exit(3)


def quoted(text, mark="'"):
    return mark + text.replace(mark, 2 * mark) + mark


plan = json.load(sys.stdin)
database = duckdb.connect()
# It would be printed among the outcomes.
database.execute("SET enable_progress_bar = false")
for table in plan["tables"]:
    columns = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in table["columns"])
    # Text is always quoted and nothing else is: an empty field is NULL, an empty text is not.
    database.execute(
        f"CREATE TABLE {quoted(table['name'], chr(34))} AS SELECT * FROM read_csv({quoted(table['file'])}, "
        f"columns = {{{columns}}}, header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
        "nullstr = '', allow_quoted_nulls = false)"
    )
for query in plan["queries"]:
    sql = query["sql"].strip().rstrip(";")
    started = time.monotonic()
    try:
        database.execute(f"COPY (\n{sql}\n) TO {quoted(query['file'])} (FORMAT json)")
        outcome = {"ms": round((time.monotonic() - started) * 1000)}
    except duckdb.Error as error:
        outcome = {"error": str(error)}
    print(json.dumps({"view": query["view"]} | outcome), flush=True)
