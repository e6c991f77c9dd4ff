// SPDX-License-Identifier: Apache-2.0
#include "server/testing/blob_store_suite.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "server/testing/by_link.h"

namespace ballast::server::testing {

using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BlobLinkSuite);

void BlobStoreSuite::Put(const std::string& name, const std::string& bytes) {
  ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create(name));
  ASSERT_OK(writer->Append(bytes));
  ASSERT_OK(writer->Commit(DigestOf(bytes)));
}

std::string BlobStoreSuite::Get(const std::string& name) {
  const auto reader = store_->Open(name);
  EXPECT_OK(reader);
  return reader.ok() ? (*reader)->Read(0, 1 << 20).value_or("unreadable") : "missing";
}

namespace {

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST_P(BlobStoreSuite, ABlobIsThereOnceItIsCommitted) {
  ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create("a/b/c"));
  ASSERT_OK(writer->Append("hello "));
  ASSERT_OK(writer->Append("world"));
  EXPECT_THAT(store_->Open("a/b/c"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  ASSERT_OK(writer->Sync());
  ASSERT_OK_AND_ASSIGN(const std::string digest, writer->Commit(""));
  EXPECT_EQ(digest, DigestOf("hello world"));
  EXPECT_EQ(writer->size_bytes(), 11);
  EXPECT_EQ(Get("a/b/c"), "hello world");
  EXPECT_EQ(store_->Size("a/b/c").value(), 11);
}

TEST_P(BlobStoreSuite, AWriterThatIsGivenUpLeavesNothing) {
  {
    ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create("a"));
    ASSERT_OK(writer->Append("x"));
  }
  EXPECT_THAT(store_->Open("a"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
}

TEST_P(BlobStoreSuite, AWrongDigestStoresNothing) {
  Put("a", "before");
  ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create("a"));
  ASSERT_OK(writer->Append("after"));
  EXPECT_THAT(writer->Commit(DigestOf("other")), StatusIs(kInvalid, "DIGEST_MISMATCH"));
  EXPECT_EQ(Get("a"), "before");
}

TEST_P(BlobStoreSuite, TheLastCommitWinsAndOldReadersSeeNothingOfIt) {
  Put("a", "one");
  ASSERT_OK_AND_ASSIGN(const auto old, store_->Open("a"));
  Put("a", "second");
  EXPECT_EQ(Get("a"), "second");
  const auto read = old->Read(0, 100);
  if (read.ok()) {
    EXPECT_EQ(*read, "one");
  } else {
    EXPECT_THAT(read, StatusIs(absl::StatusCode::kAborted, "BLOB_REPLACED"));
  }
}

TEST_P(BlobStoreSuite, ReadsRanges) {
  Put("a", "0123456789");
  ASSERT_OK_AND_ASSIGN(const auto reader, store_->Open("a"));
  EXPECT_EQ(reader->size_bytes(), 10);
  EXPECT_EQ(reader->Read(3, 4).value(), "3456");
  EXPECT_EQ(reader->Read(8, 100).value(), "89");
  EXPECT_EQ(reader->Read(10, 1).value(), "");
  EXPECT_EQ(reader->Read(100, 1).value(), "");
}

TEST_P(BlobStoreSuite, AppendsOverManyCallsAndProcesses) {
  {
    ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("up/load"));
    EXPECT_EQ(appender->size_bytes(), 0);
    ASSERT_OK(appender->Append("first "));
    ASSERT_OK(appender->Sync());
  }
  store_ = GetParam()(folder_.path());
  ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("up/load"));
  EXPECT_EQ(appender->size_bytes(), 6);
  ASSERT_OK(appender->Append("second"));
  EXPECT_EQ(appender->size_bytes(), 12);
  EXPECT_EQ(appender->Digest().value(), DigestOf("first second"));
  EXPECT_EQ(Get("up/load"), "first second");

  ASSERT_OK_AND_ASSIGN(const auto whole, store_->OpenAppend("whole"));
  ASSERT_OK(whole->Append("at once"));
  EXPECT_EQ(whole->Digest().value(), DigestOf("at once"));
}

// More than any part that a store cuts blobs into, and no multiple of one.
std::string ManyBytes() {
  std::string bytes(static_cast<size_t>(19 << 20) + 7, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  return bytes;
}

TEST_P(BlobStoreSuite, LargeBlobsComeBackWhole) {
  const std::string bytes = ManyBytes();
  ASSERT_OK_AND_ASSIGN(const auto writer, store_->Create("large"));
  for (size_t at = 0; at < bytes.size(); at += 3 << 20) {
    ASSERT_OK(writer->Append(bytes.substr(at, 3 << 20)));
  }
  EXPECT_THAT(store_->Open("large"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  ASSERT_OK(writer->Commit(DigestOf(bytes)));
  ASSERT_OK_AND_ASSIGN(const auto reader, store_->Open("large"));
  ASSERT_EQ(reader->size_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(reader->Read(0, bytes.size() + 1).value() == bytes);
  EXPECT_TRUE(reader->Read(5'000'000, 9'000'000).value() == bytes.substr(5'000'000, 9'000'000));
  EXPECT_TRUE(reader->Read(123, 4).value() == bytes.substr(123, 4));
}

TEST_P(BlobStoreSuite, LargeUploadsComeBackWhole) {
  const std::string bytes = ManyBytes();
  int64_t stored = 0;
  for (int part = 0; part < 2; ++part) {
    ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("large"));
    ASSERT_EQ(appender->size_bytes(), stored);
    const auto end = part == 0 ? bytes.size() / 2 : bytes.size();
    for (auto at = static_cast<size_t>(stored); at < end; at += 1 << 20) {
      ASSERT_OK(appender->Append(
          std::string_view(bytes).substr(at, std::min(end - at, size_t{1} << 20))));
    }
    ASSERT_OK(appender->Sync());
    stored = appender->size_bytes();
    if (part == 1) {
      EXPECT_EQ(appender->Digest().value(), DigestOf(bytes));
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto reader, store_->Open("large"));
  ASSERT_EQ(reader->size_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(reader->Read(0, bytes.size()).value() == bytes);
  EXPECT_TRUE(reader->Read(8'388'600, 20).value() == bytes.substr(8'388'600, 20));
  ASSERT_OK(store_->DeletePrefix("large"));
  EXPECT_THAT(store_->Size("large"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const auto anew, store_->OpenAppend("large"));
  EXPECT_EQ(anew->size_bytes(), 0);
}

TEST_P(BlobStoreSuite, AnEmptyUploadIsABlob) {
  { ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("empty")); }
  EXPECT_EQ(store_->Size("empty").value(), 0);
  EXPECT_EQ(Get("empty"), "");
}

TEST_P(BlobStoreSuite, AdoptsLocalFiles) {
  const std::string local = folder_.path() + "/local-file";
  ASSERT_OK(WriteFileAtomically(local, "adopted"));
  ASSERT_OK(store_->Adopt("m/file", local));
  EXPECT_EQ(Get("m/file"), "adopted");
  EXPECT_FALSE(FileExists(local));
  EXPECT_FALSE(store_->Adopt("m/other", local).ok());
}

TEST_P(BlobStoreSuite, DeletesWholePartsOfNamesOnly) {
  Put("jobs/1/a", "x");
  Put("jobs/1/b/c", "x");
  Put("jobs/10/a", "y");
  ASSERT_OK(store_->DeletePrefix("jobs/1"));
  EXPECT_THAT(store_->Open("jobs/1/a"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  EXPECT_THAT(store_->Open("jobs/1/b/c"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  EXPECT_EQ(Get("jobs/10/a"), "y");
  ASSERT_OK(store_->DeletePrefix("jobs/1"));
  ASSERT_OK(store_->DeletePrefix("jobs/10/a"));
  EXPECT_THAT(store_->Open("jobs/10/a"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
}

TEST_P(BlobStoreSuite, RefusesNamesThatCouldLeaveIt) {
  for (const char* name :
       {"", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "a/./b", "a b", "a\\b", "a\nb"}) {
    EXPECT_THAT(store_->Create(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->Open(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->OpenAppend(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->DeletePrefix(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
  }
}

absl::Status GoOn() { return absl::OkStatus(); }

TEST_P(BlobStoreSuite, LinksAreThereAltogetherOrNotAtAll) {
  Put("a", "bytes");
  const auto links = store_->ReadLinks("a");
  const absl::Status others[] = {store_->WriteLink("in/0").status(),
                                 store_->WrittenByLinks("in").status(),
                                 store_->CopyWritten("b", {}, GoOn)};
  if (links.ok()) {
    EXPECT_EQ(GetByLinks(*links).value(), "bytes");
    for (const absl::Status& status : others) EXPECT_OK(status);
    return;
  }
  constexpr auto kNone = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(links, StatusIs(kNone, "LINKS_UNAVAILABLE"));
  for (const absl::Status& status : others)
    EXPECT_THAT(status, StatusIs(kNone, "LINKS_UNAVAILABLE"));
}

TEST_P(BlobLinkSuite, BlobsAreReadByLinks) {
  const std::string bytes = ManyBytes();
  Put("written", bytes);
  ASSERT_OK_AND_ASSIGN(const BlobLinks written, store_->ReadLinks("written"));
  EXPECT_GT(written.valid, absl::ZeroDuration());
  EXPECT_TRUE(GetByLinks(written).value() == bytes);
  ASSERT_EQ(written.links.size(), 1u);
  EXPECT_EQ(GetByLink(written.links[0].url, 5'000'000, 7).value(), bytes.substr(5'000'000, 7));

  ASSERT_OK_AND_ASSIGN(const auto appender, store_->OpenAppend("appended"));
  for (const char* piece : {"one ", "second ", "3"}) {
    ASSERT_OK(appender->Append(piece));
    ASSERT_OK(appender->Sync());
  }
  EXPECT_EQ(GetByLinks(store_->ReadLinks("appended").value()).value(), "one second 3");

  ASSERT_OK(store_->OpenAppend("empty"));
  Put("nothing", "");
  EXPECT_THAT(store_->ReadLinks("empty").value().links, IsEmpty());
  EXPECT_THAT(store_->ReadLinks("nothing").value().links, IsEmpty());
  EXPECT_THAT(store_->ReadLinks("missing"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
}

TEST_P(BlobLinkSuite, ALinkIsForOneNameAndOneOperation) {
  constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
  Put("mine", "my bytes");
  Put("hers", "her bytes");
  const std::string get = store_->ReadLinks("mine").value().links.at(0).url;
  EXPECT_THAT(PutByLink(get, {}, "replaced"), StatusIs(kDenied, "LINK_REFUSED"));
  const auto write = store_->WriteLink("in/0").value();
  EXPECT_THAT(GetByLink(write.url, 0, 1), StatusIs(kDenied, "LINK_REFUSED"));
  std::string forged = get;
  forged.replace(forged.find("mine"), 4, "hers");
  EXPECT_THAT(GetByLink(forged, 0, 9), StatusIs(kDenied, "LINK_REFUSED"));
  forged = write.url;
  forged.replace(forged.find("in/0"), 4, "hers");
  EXPECT_THAT(PutByLink(forged, write.headers, "replaced"), StatusIs(kDenied, "LINK_REFUSED"));
  EXPECT_EQ(Get("mine"), "my bytes");
  EXPECT_EQ(Get("hers"), "her bytes");
}

TEST_P(BlobLinkSuite, WhatWasWrittenByLinksIsCopiedAndDoesNotChangeAnyMore) {
  const auto first = store_->WriteLink("in/0").value();
  const auto second = store_->WriteLink("in/1").value();
  EXPECT_THAT(store_->WrittenByLinks("in").value(), IsEmpty());
  ASSERT_OK(PutByLink(first.url, first.headers, "hello "));
  ASSERT_OK(PutByLink(second.url, second.headers, "world"));
  EXPECT_THAT(store_->WrittenByLinks("in").value(), ElementsAre(Pair("0", 6), Pair("1", 5)));
  ASSERT_OK(store_->CopyWritten("taken", {"in/0", "in/1"}, GoOn));
  EXPECT_EQ(Get("taken"), "hello world");
  ASSERT_OK(PutByLink(first.url, first.headers, "other "));
  EXPECT_EQ(Get("taken"), "hello world");
  ASSERT_OK(store_->DeletePrefix("in"));
  EXPECT_THAT(store_->WrittenByLinks("in").value(), IsEmpty());
  EXPECT_EQ(Get("taken"), "hello world");
  EXPECT_EQ(GetByLinks(store_->ReadLinks("taken").value()).value(), "hello world");
}

TEST_P(BlobLinkSuite, ACopyOfWhatIsNotThereIsToldAndGoesWithItsName) {
  const auto link = store_->WriteLink("in/0").value();
  ASSERT_OK(PutByLink(link.url, link.headers, "only"));
  EXPECT_THAT(store_->CopyWritten("taken", {"in/0", "in/1"}, GoOn),
              StatusIs(kNotFound, "BLOB_NOT_FOUND"));
  ASSERT_OK(store_->DeletePrefix("taken"));
  EXPECT_THAT(store_->Open("taken"), StatusIs(kNotFound, "BLOB_NOT_FOUND"));
}

TEST_P(BlobLinkSuite, ACopyEndsBetweenItsPartsWhenItIsTold) {
  for (const char* part : {"in/0", "in/1", "in/2"}) {
    const auto link = store_->WriteLink(part).value();
    ASSERT_OK(PutByLink(link.url, link.headers, "part"));
  }
  int asked = 0;
  EXPECT_THAT(store_->CopyWritten("taken", {"in/0", "in/1", "in/2"},
                                  [&] {
                                    return ++asked < 3 ? absl::OkStatus()
                                                       : MakeError(absl::StatusCode::kUnavailable,
                                                                   "ENOUGH", "the server stops");
                                  }),
              StatusIs(absl::StatusCode::kUnavailable, "ENOUGH"));
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(Get("taken"), "partpart");
}

TEST_P(BlobLinkSuite, RefusesLinksToNamesThatCouldLeaveIt) {
  for (const char* name : {"", "/", "a//b", "../a", "a/../b", "a b"}) {
    EXPECT_THAT(store_->ReadLinks(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->WriteLink(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->WrittenByLinks(name), StatusIs(kInvalid, "BLOB_NAME_INVALID")) << name;
    EXPECT_THAT(store_->CopyWritten(name, {}, GoOn), StatusIs(kInvalid, "BLOB_NAME_INVALID"))
        << name;
    EXPECT_THAT(store_->CopyWritten("a", {name}, GoOn), StatusIs(kInvalid, "BLOB_NAME_INVALID"))
        << name;
  }
}

}  // namespace
}  // namespace ballast::server::testing
