// written_pages: which ranges of memory were written since somebody asked, as the kernel's page tables know
// it.
//
// Linux (6.7 and later) can write-protect pages so that the first write to each is resolved at once and
// remembered (userfaultfd's asynchronous mode), and lists those pages while it protects them again
// (PAGEMAP_SCAN). So a hundred megabytes that nobody wrote cost a walk over their page table, not over them.
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "../ops.h"

#if defined(__linux__) && __has_include(<linux/userfaultfd.h>)
#define XAI_FAST_WATCHES
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>
#endif

namespace xai_fast {

#ifdef XAI_FAST_WATCHES
namespace {

// What headers older than these parts of the kernel lack; see its documentation of pagemap and userfaultfd.
constexpr uint64_t kUserModeOnly = 1, kTellsWrites = 1 << 0, kUnpopulated = 1 << 13, kAsynchronous = 1 << 15;
constexpr uint64_t kProtectAgain = 1 << 0, kOnlyIfWatched = 1 << 1, kWritten = 1 << 1;

struct Region {
  uint64_t start, end, categories;
};

struct Scan {
  uint64_t size, flags, start, end, walk_end, regions, capacity, most_pages;
  uint64_t inverted, all_of, any_of, returned;
};

constexpr int kWipeOnFork = 18;  // of madvise

constexpr unsigned long kScan = _IOWR('f', 16, Scan);

// A page of memory that a child begins without: whatever was opened before a fork belongs to the parent.
class OfThisProcess {
 public:
  // Whether this was asked before by this very process.
  bool known() {
    if (!page_) {
      void* const made =
          mmap(nullptr, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (made == MAP_FAILED) return false;
      if (madvise(made, page_size(), kWipeOnFork) != 0) {
        munmap(made, page_size());
        return false;
      }
      page_ = static_cast<volatile char*>(made);
    }
    const bool before = *page_ != 0;
    *page_ = 1;
    return before;
  }

  bool usable() const { return page_ != nullptr; }

  static uint64_t page_size() {
    static const uint64_t kSize = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    return kSize;
  }

 private:
  volatile char* page_ = nullptr;
};

// When which addresses were last seen to be written, as a number that rises.
class History {
 public:
  void mark(uint64_t start, uint64_t end, uint64_t when) {
    if (start >= end) return;
    split(start);
    split(end);
    known_.erase(known_.lower_bound(start), known_.lower_bound(end));
    known_[start] = {end, when};
  }

  bool written_after(uint64_t start, uint64_t end, uint64_t when) const {
    auto one = known_.upper_bound(start);
    if (one != known_.begin()) --one;
    for (; one != known_.end() && one->first < end; ++one) {
      if (one->second.first > start && one->second.second > when) return true;
    }
    return false;
  }

  void clear() { known_.clear(); }

 private:
  void split(uint64_t at) {
    auto one = known_.lower_bound(at);
    if (one == known_.begin()) return;
    --one;
    const auto [end, when] = one->second;
    if (end <= at) return;
    one->second.first = at;
    known_[at] = {end, when};
  }

  std::map<uint64_t, std::pair<uint64_t, uint64_t>> known_;  // start: end, when; apart from each other
};

// Private memory of no file, in order; nothing where a device is mapped, which may write memory past the page
// tables of this process.
std::vector<std::pair<uint64_t, uint64_t>> private_memory() {
  std::vector<std::pair<uint64_t, uint64_t>> found;
  std::FILE* const maps = std::fopen("/proc/self/maps", "re");
  if (!maps) return found;
  char line[4352];
  bool device = false;
  while (std::fgets(line, sizeof line, maps)) {
    unsigned long long start, end, inode;
    char mode[5];
    int name = 0;
    if (std::sscanf(line, "%llx-%llx %4s %*x %*s %llu %n", &start, &end, mode, &inode, &name) < 4) continue;
    device |= name && std::strncmp(line + name, "/dev/", 5) == 0 &&
              std::strncmp(line + name, "/dev/shm/", 9) != 0 &&
              std::strncmp(line + name, "/dev/zero", 9) != 0;
    if (inode != 0 || mode[3] != 'p') continue;
    if (!found.empty() && found.back().second == start) {
      found.back().second = end;
    } else {
      found.emplace_back(start, end);
    }
  }
  std::fclose(maps);
  if (device) found.clear();
  return found;
}

class Watch {
 public:
  // Nothing, or why pages cannot be watched in this process.
  std::string refusal() {
    if (process_.known()) return refusal_;
    history_.clear();
    if (pages_ >= 0) close(pages_);
    if (faults_ >= 0) close(faults_);
    faults_ = pages_ = -1;
    refusal_ = process_.usable() ? opened() : "no page of memory could be had";
    if (refusal_.empty() && !tells_the_truth())
      refusal_ = "the kernel did not tell a write that was tried out";
    return refusal_;
  }

  // The number of this look. Per range 0: not written since look `since`; 1: it was; 2: that cannot be told.
  uint64_t look(const int64_t* ranges, int64_t count, uint64_t since, int64_t* states) {
    if (!refusal().empty()) {
      std::fill_n(states, count, 2);
      return 0;
    }
    ++now_;
    std::vector<int64_t> strangers;
    for (int64_t i = 0; i < count; ++i) {
      states[i] = scan(ranges[2 * i], ranges[2 * i + 1]) ? 0 : 2;
      if (states[i]) strangers.push_back(i);
    }
    if (!strangers.empty()) {
      const auto own = private_memory();
      for (const int64_t i : strangers) states[i] = begin(ranges[2 * i], ranges[2 * i + 1], own) ? 0 : 2;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (!states[i] && history_.written_after(ranges[2 * i], ranges[2 * i + 1], since)) states[i] = 1;
    }
    return now_;
  }

 private:
  std::string opened() {
    faults_ = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly));
    if (faults_ < 0) return std::string("userfaultfd: ") + std::strerror(errno);
    uffdio_api asked{};
    asked.api = UFFD_API;
    asked.features = kTellsWrites | kUnpopulated | kAsynchronous;
    if (ioctl(faults_, UFFDIO_API, &asked) != 0) {
      return std::string("userfaultfd cannot watch writes (Linux before 6.7): ") + std::strerror(errno);
    }
    pages_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pages_ < 0) return std::string("/proc/self/pagemap: ") + std::strerror(errno);
    return "";
  }

  // On four pages of its own, of which one is written.
  bool tells_the_truth() {
    const uint64_t size = process_.page_size();
    void* const made = mmap(nullptr, 4 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return false;
    auto* const bytes = static_cast<volatile char*>(made);
    const auto start = reinterpret_cast<uint64_t>(made), end = start + 4 * size;
    for (int page = 0; page < 3; ++page) bytes[page * size] = 1;
    bool right = registered(start, end) && scan(start, end);
    history_.clear();
    ++now_;
    right = right && scan(start, end) && !history_.written_after(start, end, 0);
    bytes[2 * size + 5] = 1;
    right = right && scan(start, end) && !history_.written_after(start, start + 2 * size, 0) &&
            history_.written_after(start + 2 * size, start + 3 * size, 0) &&
            !history_.written_after(start + 3 * size, end, 0);
    munmap(made, 4 * size);
    history_.clear();
    return right;
  }

  bool registered(uint64_t start, uint64_t end) const {
    uffdio_register asked{};
    asked.range = {start, end - start};
    asked.mode = UFFDIO_REGISTER_MODE_WP;
    return ioctl(faults_, UFFDIO_REGISTER, &asked) == 0;
  }

  // Protects what was written and notes it. False where part of the range is not watched; what was found
  // before that part was met is lost then, so that all of it counts as written.
  bool scan(uint64_t start, uint64_t end) {
    Region found[64];
    for (uint64_t from = start; from < end;) {
      Scan asked{};
      asked.size = sizeof asked;
      asked.flags = kProtectAgain | kOnlyIfWatched;
      asked.start = from;
      asked.end = end;
      asked.regions = reinterpret_cast<uint64_t>(found);
      asked.capacity = std::size(found);
      asked.all_of = asked.returned = kWritten;
      const long count = ioctl(pages_, kScan, &asked);
      if (count < 0 || asked.walk_end <= from) {
        history_.mark(start, end, now_);
        return false;
      }
      for (long i = 0; i < count; ++i) history_.mark(found[i].start, found[i].end, now_);
      from = asked.walk_end;
    }
    return true;
  }

  // Begins to watch a range, all of which counts as written now.
  bool begin(uint64_t start, uint64_t end, const std::vector<std::pair<uint64_t, uint64_t>>& own) {
    auto inside =
        std::upper_bound(own.begin(), own.end(), std::pair{start, std::numeric_limits<uint64_t>::max()});
    if (inside == own.begin() || (--inside)->second < end) return false;
    if (!registered(start, end)) return false;
    const bool done = scan(start, end);
    history_.mark(start, end, now_);
    return done;
  }

  OfThisProcess process_;
  std::string refusal_;
  int faults_ = -1, pages_ = -1;
  uint64_t now_ = 0;
  History history_;
};

std::mutex lock;  // asked with the GIL held, so that no fork in Python leaves it locked

Watch& watch() {
  static Watch* const kWatch = new Watch;  // for as long as the process lives
  return *kWatch;
}

}  // namespace

std::string cannot_watch_pages() {
  const std::lock_guard<std::mutex> held(lock);
  return watch().refusal();
}

uint64_t written_pages(const Tensor& ranges, uint64_t since, const Tensor& out) {
  const std::lock_guard<std::mutex> held(lock);
  return watch().look(ranges.as<const int64_t>(), out.size(), since, out.as<int64_t>());
}

#else

std::string cannot_watch_pages() { return "only Linux tells which pages were written"; }

uint64_t written_pages(const Tensor&, uint64_t, const Tensor& out) {
  for (int64_t i = 0; i < out.size(); ++i) out.as<int64_t>()[i] = 2;
  return 0;
}

#endif

}  // namespace xai_fast
