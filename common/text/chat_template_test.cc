// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>
#include <thread>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/text/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace ballast::text {
namespace {

using ::ballast::testing::IsOkAndHolds;
using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Testdata(const std::string& name) {
  return *ReadFile(std::string(std::getenv("BALLAST_SOURCE_DIR")) + "/common/text/testdata/" +
                   name);
}

std::vector<ChatMessage> ChatOf(const Json& turns) {
  std::vector<ChatMessage> chat;
  for (const Json& turn : turns) {
    chat.push_back({turn["role"].get<std::string>(), turn["content"].get<std::string>()});
  }
  return chat;
}

// make_goldens.py wrote what transformers' apply_chat_template gives; null where the template
// raised.
TEST(ChatTemplateTest, EqualsTransformersOnEveryShape) {
  const Json goldens = Json::parse(Testdata("goldens.json"), nullptr, false);
  std::set<std::string> shapes;
  for (const Json& test : goldens["cases"]) {
    const std::string name = test["template"].get<std::string>();
    shapes.insert(name);
    ASSERT_OK_AND_ASSIGN(
        const auto chat_template,
        ChatTemplate::FromSource(Testdata("templates/" + name + ".jinja"),
                                 goldens["tokens"]["bos_token"].get<std::string>(),
                                 goldens["tokens"]["eos_token"].get<std::string>()));
    const auto rendered =
        chat_template->Render(ChatOf(goldens["chats"][test["chat"].get<std::string>()]),
                              test["add_generation_prompt"].get<bool>());
    SCOPED_TRACE(name + " " + test["chat"].get<std::string>());
    if (test["rendered"].is_null()) {
      EXPECT_THAT(rendered, StatusIs(kInvalid, "TEMPLATE_FAILED"));
    } else {
      ASSERT_OK(rendered);
      EXPECT_EQ(*rendered, test["rendered"].get<std::string>());
    }
  }
  EXPECT_GE(shapes.size(), 7u);
}

absl::StatusOr<std::string> Render(std::string_view source) {
  auto chat_template = ChatTemplate::FromSource(source, "", "");
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render({{"user", "hi"}}, false);
}

TEST(ChatTemplateTest, MissingTokensAreUndefined) {
  EXPECT_THAT(Render("{{ bos_token is defined }}{{ eos_token }}|"), IsOkAndHolds("False|"));
}

TEST(ChatTemplateTest, SyntaxErrorsAreInvalidAndNameTheLine) {
  for (const char* source : {"{% if %}", "a\n{% for x in %}{% endfor %}", "{{ ", "{% nonsense %}",
                             "{% generation %}", "\xff"}) {
    EXPECT_THAT(ChatTemplate::FromSource(source, "", ""), StatusIs(kInvalid, "TEMPLATE_INVALID"));
  }
  EXPECT_THAT(std::string(ChatTemplate::FromSource("a\n{% if %}", "", "").status().message()),
              HasSubstr("line 2"));
  EXPECT_THAT(ChatTemplate::FromSource(std::string((1 << 20) + 1, 'x'), "", ""),
              StatusIs(kInvalid, "TEMPLATE_INVALID"));
  EXPECT_THAT(ChatTemplate::FromSource("{{ " + std::string(500'000, '(') + " }}", "", ""),
              StatusIs(kInvalid, "TEMPLATE_INVALID"));
}

TEST(ChatTemplateTest, RaisingIsFailedWithTheTemplatesMessage) {
  const auto result = Render("{{ raise_exception('roles must alternate') }}");
  EXPECT_THAT(result, StatusIs(kInvalid, "TEMPLATE_FAILED"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("roles must alternate"));
  for (const char* source :
       {"{{ nothing.at_all }}", "{{ 'a' + 1 }}", "{{ messages[0].content() }}", "{{ 1 // 0 }}",
        "{{ undefined_function() }}", "{{ x | tojson }}", "{{ strftime_now('%') }}"}) {
    EXPECT_THAT(Render(source), StatusIs(kInvalid, "TEMPLATE_FAILED")) << source;
  }
}

TEST(ChatTemplateTest, BadUtf8InAMessageIsFailed) {
  ASSERT_OK_AND_ASSIGN(const auto chat_template,
                       ChatTemplate::FromSource("{{ messages[0].content }}", "", ""));
  EXPECT_THAT(chat_template->Render({{"user", "\xc3"}}, false),
              StatusIs(kInvalid, "TEMPLATE_FAILED"));
}

TEST(ChatTemplateTest, NowIsTheSameAlwaysAndEverywhere) {
  for (const char* zone : {"UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"}) {
    setenv("TZ", zone, /*overwrite=*/1);
    tzset();
    EXPECT_THAT(Render("{{ strftime_now('%d %b %Y %H:%M:%S %Z') }}"),
                IsOkAndHolds("26 Jul 2024 00:00:00 UTC"));
  }
  unsetenv("TZ");
  tzset();
}

TEST(ChatTemplateTest, HostileTemplatesEndWithALimit) {
  const auto start = std::chrono::steady_clock::now();
  for (const char* source : {
           // Steps.
           "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
           "{% macro f(n) %}{% for i in range(9) %}{{ f(n - 1) if n }}{% endfor %}{% endmacro %}{{ "
           "f(20) }}",
           // Output.
           "{% set x = 'x' * 1000000 %}{% for i in range(90000) %}{{ x }}{% endfor %}",
           // Memory: a text that doubles, in a loop, in a capture, by method and by filter.
           "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% "
           "endfor %}",
           "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ "
           "ns.x }}"
           "{% endset %}{% endfor %}",
           "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(9) %}"
           "{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
           "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(9) %}"
           "{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}",
           // Much work in few steps: big texts made again and again.
           "{% set x = 'x' * 1000000 %}{% for i in range(90000) %}{% if x | upper == 'y' %}{% "
           "endif %}"
           "{% endfor %}",
       }) {
    EXPECT_THAT(Render(source), StatusIs(kInvalid, "TEMPLATE_LIMIT")) << source;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  // Endless recursion meets the engine's own limit.
  EXPECT_THAT(Render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
              StatusIs(kInvalid, "TEMPLATE_FAILED"));
}

TEST(ChatTemplateTest, CompilingHasABudgetToo) {
  // The engine computes constant expressions as it compiles.
  std::string many;
  for (int i = 0; i < 50; ++i) many += "{{ 'x' * 10000000 }}";
  for (const std::string& source : {std::string("{{ 'x' * 100000000 }}"), many}) {
    EXPECT_THAT(ChatTemplate::FromSource(source, "", ""), StatusIs(kInvalid, "TEMPLATE_LIMIT"));
  }
  EXPECT_THAT(Render("{{ 'x' * 3 }}"), IsOkAndHolds("xxx"));
}

TEST(ChatTemplateTest, AChatThatPassesTheMemoryBarsNobody) {
  ASSERT_OK_AND_ASSIGN(
      const auto chat_template,
      ChatTemplate::FromSource("{% if messages[0].content == 'grow' %}"
                               "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
                               "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{% endif %}ok",
                               "", ""));
  rusage before{}, after{};
  for (int i = 0; i < 40; ++i) {
    if (i == 5) getrusage(RUSAGE_SELF, &before);
    EXPECT_THAT(chat_template->Render({{"user", "grow"}}, false),
                StatusIs(kInvalid, "TEMPLATE_LIMIT"));
    EXPECT_THAT(chat_template->Render({{"user", "no"}}, false), IsOkAndHolds("ok"));
  }
  // Each of them held some 30 MiB when it was stopped, and gave it back.
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 256 * 1024) << "KiB";
}

TEST(ChatTemplateTest, WithoutThreadsItIsNotTheChatsFault) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizers need address space themselves";
#endif
  // A process of its own: one that has run templates has spare stacks.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        int64_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        // Room for small things, and for no stack.
        rlimit space{};
        space.rlim_cur = space.rlim_max = pages * sysconf(_SC_PAGESIZE) + (1 << 20);
        setrlimit(RLIMIT_AS, &space);
        const absl::Status status = ChatTemplate::FromSource("ok", "", "").status();
        const bool busy = absl::IsUnavailable(status) && ErrorReason(status) == "TEXT_LIBRARY_BUSY";
        std::_Exit(busy ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(ChatTemplateTest, LongChatsFitTheLimits) {
  ASSERT_OK_AND_ASSIGN(const auto chat_template,
                       ChatTemplate::FromSource(Testdata("templates/qwen25.jinja"), "", ""));
  std::vector<ChatMessage> chat;
  for (int i = 0; i < 2000; ++i) chat.push_back({i % 2 == 0 ? "user" : "assistant", "text"});
  EXPECT_OK(chat_template->Render(chat, true));
  EXPECT_OK(chat_template->Render({{"user", std::string(4 << 20, 'x')}}, true));
}

TEST(ChatTemplateTest, ThreadsMayShareOne) {
  ASSERT_OK_AND_ASSIGN(const auto chat_template,
                       ChatTemplate::FromSource("{{ messages[0].content }}", "", ""));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::string text = std::to_string(t * 1000 + i);
        const auto rendered = chat_template->Render({{"user", text}}, false);
        if (!rendered.ok() || *rendered != text) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace ballast::text
