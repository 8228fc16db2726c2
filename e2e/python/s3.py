"""Objects of an S3 server, any key whatever. Each line of standard input is a JSON request and gets a line of JSON as answer.

Request: {"endpoint", "region", "access_key", "secret_key", "operation": {...}}. Operations:
  {"op": "create_bucket" | "delete_bucket", "bucket"}
  {"op": "put", "bucket", "objects": [{"key", "file"} | {"key", "base64"} ...]}     all at once, in parallel
  {"op": "put_summed", "bucket", "key", "file", "algorithm", "parts"}                parts: null, FULL_OBJECT or COMPOSITE
  {"op": "get", "bucket", "key"}                                                     -> base64
  {"op": "list", "bucket", "prefix"}                                                 -> [{"key", "size", "etag"} ...]
  {"op": "delete", "bucket", "keys": [...]}
  {"op": "presign", "bucket", "key"}                                                 -> URL for anyone, for an hour
Answer: {"result": ...} or {"error": text}.
"""
import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PARALLEL = 16
# As many as the protocol allows.
DELETED_AT_ONCE = 1000
# Of uploads in parts; the protocol allows no smaller ones, but for the last.
PART = 5 << 20


@cache
def connect(endpoint, region, access_key, secret_key):
    config = Config(
        s3={"addressing_style": "path"},
        max_pool_connections=PARALLEL,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 5, "mode": "standard"},
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=config,
    )


def create_bucket(s3, operation):
    try:
        s3.create_bucket(Bucket=operation["bucket"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise


def delete_bucket(s3, operation):
    delete(s3, {"bucket": operation["bucket"], "keys": [o["key"] for o in list_objects(s3, {**operation, "prefix": ""})]})
    s3.delete_bucket(Bucket=operation["bucket"])


def put(s3, operation):
    def one(item):
        if "file" in item:
            s3.upload_file(item["file"], operation["bucket"], item["key"])
        else:
            s3.put_object(Bucket=operation["bucket"], Key=item["key"], Body=base64.b64decode(item["base64"]))

    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in pool.map(one, operation["objects"]):
            pass


def put_summed(s3, operation):
    """An object with a checksum, whole or in parts of PART bytes."""
    target = {"Bucket": operation["bucket"], "Key": operation["key"]}
    algorithm, kind = operation["algorithm"], operation["parts"]
    with open(operation["file"], "rb") as file:
        if kind is None:
            s3.put_object(**target, Body=file.read(), ChecksumAlgorithm=algorithm)
            return
        begun = s3.create_multipart_upload(**target, ChecksumAlgorithm=algorithm, ChecksumType=kind)
        target["UploadId"] = begun["UploadId"]
        parts = []
        while body := file.read(PART):
            number = len(parts) + 1
            sent = s3.upload_part(**target, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
            name = f"Checksum{algorithm}"
            parts.append({"PartNumber": number, "ETag": sent["ETag"], name: sent[name]})
        s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}, ChecksumType=kind)


def get(s3, operation):
    body = s3.get_object(Bucket=operation["bucket"], Key=operation["key"])["Body"].read()
    return base64.b64encode(body).decode()


def list_objects(s3, operation):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=operation["bucket"], Prefix=operation["prefix"])
    found = [entry for page in pages for entry in page.get("Contents", [])]
    return [{"key": entry["Key"], "size": entry["Size"], "etag": entry["ETag"]} for entry in found]


def delete(s3, operation):
    keys = operation["keys"]
    for start in range(0, len(keys), DELETED_AT_ONCE):
        some = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
        answer = s3.delete_objects(Bucket=operation["bucket"], Delete={"Objects": some, "Quiet": True})
        if answer.get("Errors"):
            raise OSError(f"cannot delete {answer['Errors'][:3]}")


def presign(s3, operation):
    return s3.generate_presigned_url("get_object", Params={"Bucket": operation["bucket"], "Key": operation["key"]}, ExpiresIn=3600)


OPERATIONS = {
    "create_bucket": create_bucket,
    "delete_bucket": delete_bucket,
    "put": put,
    "put_summed": put_summed,
    "get": get,
    "list": list_objects,
    "delete": delete,
    "presign": presign,
}


def answer(request):
    try:
        s3 = connect(*(request[key] for key in ("endpoint", "region", "access_key", "secret_key")))
        operation = request["operation"]
        return {"result": OPERATIONS[operation["op"]](s3, operation)}
    except (BotoCoreError, ClientError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
