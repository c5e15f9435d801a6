"""Carries one table with a library of PyPI: `land.py adbc|dlt TABLE SCHEMA`, or `land.py version adbc|dlt`.

SOURCE_URI and TARGET_URI name the databases. Each way is the one that the library's own guide shows
for PostgreSQL; both read the table as a stream of Arrow batches."""

import importlib.metadata
import os
import sys

DISTRIBUTIONS = {"adbc": "adbc-driver-postgresql", "dlt": "dlt"}


def adbc(table, schema):
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(os.environ["SOURCE_URI"]) as source, dbapi.connect(os.environ["TARGET_URI"]) as target:
        with source.cursor() as reader, target.cursor() as writer:
            reader.execute(f'SELECT * FROM "{table}"')
            writer.adbc_ingest(table, reader.fetch_record_batch(), mode="create")
        target.commit()


def dlt(table, schema):
    import dlt
    from dlt.sources.sql_database import sql_table

    rows = sql_table(
        # SQLAlchemy's default for plain postgresql:// is another driver, which dlt does not bring.
        credentials=os.environ["SOURCE_URI"].replace("postgresql:", "postgresql+psycopg2:", 1),
        table=table,
        schema="public",
        backend="pyarrow",
    )
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        destination=dlt.destinations.postgres(os.environ["TARGET_URI"]),
        dataset_name=schema,
        pipelines_dir=os.path.join(os.getcwd(), "pipelines"),
    )
    # Parquet goes into PostgreSQL by ADBC: the quickest of dlt's ways, and the only one of its two for Arrow
    # data that takes binary columns.
    pipeline.run(rows, write_disposition="replace", loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    if sys.argv[1] == "version":
        __import__({"adbc": "adbc_driver_postgresql", "dlt": "dlt"}[sys.argv[2]])
        print(sys.argv[2], importlib.metadata.version(DISTRIBUTIONS[sys.argv[2]]))
    else:
        {"adbc": adbc, "dlt": dlt}[sys.argv[1]](*sys.argv[2:])
