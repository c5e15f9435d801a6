"""Carries one table with a library of PyPI: `land.py adbc|dlt TABLE SCHEMA`, `land.py adbc-through-parquet TABLE
FOLDER` by way of a Parquet file, `land.py adbc-from-parquet TABLE FOLDER` from files that lie there, or `land.py
version adbc|dlt`.

SOURCE_URI and TARGET_URI name the databases; the target is PostgreSQL. Each way is the one that the library's own
guide shows; all read the table as a stream of Arrow batches."""

import importlib.metadata
import os
import sys

DISTRIBUTIONS = {"adbc": "adbc-driver-postgresql", "dlt": "dlt"}


def connect(uri):
    if uri.startswith("sqlite:///"):
        from adbc_driver_sqlite import dbapi

        return dbapi.connect(uri.removeprefix("sqlite:///"))
    from adbc_driver_postgresql import dbapi

    return dbapi.connect(uri)


def adbc(table, schema):
    with connect(os.environ["SOURCE_URI"]) as source, connect(os.environ["TARGET_URI"]) as target:
        with source.cursor() as reader, target.cursor() as writer:
            reader.execute(f'SELECT * FROM "{table}"')
            writer.adbc_ingest(table, reader.fetch_record_batch(), mode="create")
        target.commit()


def adbc_through_parquet(table, folder):
    import pyarrow.parquet

    os.makedirs(folder)
    path = os.path.join(folder, table + ".parquet")
    with connect(os.environ["SOURCE_URI"]) as source, source.cursor() as reader:
        reader.execute(f'SELECT * FROM "{table}"')
        batches = reader.fetch_record_batch()
        with pyarrow.parquet.ParquetWriter(path, batches.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
    # What lies between the two halves is to be there after a power cut, as a table is.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    adbc_from_parquet(table, folder)


def adbc_from_parquet(table, folder):
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(folder, format="parquet").scanner().to_reader()
    with connect(os.environ["TARGET_URI"]) as target:
        with target.cursor() as writer:
            writer.adbc_ingest(table, rows, mode="create")
        target.commit()


def dlt(table, schema):
    import dlt
    from dlt.sources.sql_database import sql_table

    source = os.environ["SOURCE_URI"]
    rows = sql_table(
        # SQLAlchemy's default for plain postgresql:// is another driver, which dlt does not bring.
        credentials=source.replace("postgresql:", "postgresql+psycopg2:", 1),
        table=table,
        schema="public" if source.startswith("postgresql:") else None,
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


WAYS = {
    "adbc": adbc,
    "dlt": dlt,
    "adbc-through-parquet": adbc_through_parquet,
    "adbc-from-parquet": adbc_from_parquet,
}

if __name__ == "__main__":
    if sys.argv[1] == "version":
        __import__({"adbc": "adbc_driver_postgresql", "dlt": "dlt"}[sys.argv[2]])
        print(sys.argv[2], importlib.metadata.version(DISTRIBUTIONS[sys.argv[2]]))
    else:
        WAYS[sys.argv[1]](*sys.argv[2:])
